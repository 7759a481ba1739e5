/* The description of this build. */
#include "parser.h"
#include "poller.h"

#define PW_TEXT(...) #__VA_ARGS__
#define PW_TEXT_OF(...) PW_TEXT(__VA_ARGS__)
#if defined(__clang__)
#define PW_COMPILER "clang " PW_TEXT_OF(__clang_major__) "." PW_TEXT_OF(__clang_minor__)
#elif defined(__GNUC__)
#define PW_COMPILER "gcc " PW_TEXT_OF(__GNUC__) "." PW_TEXT_OF(__GNUC_MINOR__)
#else
#define PW_COMPILER "an unknown compiler"
#endif
#if PW_HAS_EPOLL
#define PW_POLLERS "epoll (or poll)"
#elif PW_HAS_KQUEUE
#define PW_POLLERS "kqueue (or poll)"
#else
#define PW_POLLERS "poll"
#endif
/* The build defines PW_PARSER_HASH and PW_SANITIZERS (tools/flags.py). */
#ifdef PW_SANITIZERS
#define PW_CHECKED "; sanitizers " PW_TEXT_OF(PW_SANITIZERS)
#else
#define PW_CHECKED ""
#endif
#define PW_BUILD(simd)                                                                             \
    PW_COMPILER "; " PW_POLLERS "; picohttpparser " PW_TEXT_OF(PW_PARSER_HASH) "; " simd PW_CHECKED

const char *pw_build(void)
{
    return pw_parser_has_simd() ? PW_BUILD("SSE4.2") : PW_BUILD("no SIMD");
}
