/* Chooses the picohttpparser with SSE4.2 if the processor supports it. */

#include "parser.h"

bool pw_parser_has_simd(void)
{
#if PW_HAVE_SSE42
    return __builtin_cpu_supports("sse4.2");
#else
    return false;
#endif
}

pw_parse_request_function *pw_request_parser(void)
{
#if PW_HAVE_SSE42
    if (pw_parser_has_simd())
        return pw_sse42_parse_request;
#endif
    return pw_plain_parse_request;
}

pw_parse_headers_function *pw_fields_parser(void)
{
#if PW_HAVE_SSE42
    if (pw_parser_has_simd())
        return pw_sse42_parse_headers;
#endif
    return pw_plain_parse_headers;
}
