/* picohttpparser with SSE4.2. Compiled with -msse4.2, and called
 * only if the processor supports it. */
#include "parser.h"

#if PW_HAVE_SSE42
#define phr_parse_request pw_sse42_parse_request
#define phr_parse_response pw_sse42_parse_response
#define phr_parse_headers pw_sse42_parse_headers
#define phr_decode_chunked pw_sse42_decode_chunked
#define phr_decode_chunked_is_in_data pw_sse42_decode_chunked_is_in_data
#include "vendor/picohttpparser/picohttpparser.c"
#endif
