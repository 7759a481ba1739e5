/* picohttpparser for any processor. */
#include "parser.h"

#define phr_parse_request pw_plain_parse_request
#define phr_parse_response pw_plain_parse_response
#define phr_parse_headers pw_plain_parse_headers
#define phr_decode_chunked pw_plain_decode_chunked
#define phr_decode_chunked_is_in_data pw_plain_decode_chunked_is_in_data
#include "vendor/picohttpparser/picohttpparser.c"
