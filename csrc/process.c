/* What a worker process asks of the system, and what it is made of. */
#include <errno.h>
#include <time.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "server.h"

int32_t pw_die_with_parent(int32_t signal)
{
#ifdef __linux__
    return prctl(PR_SET_PDEATHSIG, (unsigned long)signal, 0, 0, 0) == 0 ? 0 : errno;
#else
    (void)signal;
    return ENOSYS;
#endif
}

/* Those that a call which writes may raise, in the thread that makes it. */
static const int pw_write_signals[] = {SIGPIPE, SIGXFSZ};
enum { PW_WRITE_SIGNALS = sizeof pw_write_signals / sizeof pw_write_signals[0] };

sigset_t pw_write_signals_hold(void)
{
    sigset_t set, before;
    sigemptyset(&set);
    for (int i = 0; i < PW_WRITE_SIGNALS; i++)
        sigaddset(&set, pw_write_signals[i]);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    return before;
}

static void pw_signal_discard(int number)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
#if PW_LINUX
    const struct timespec none = {0, 0};
    sigtimedwait(&set, NULL, &none);
#else /* not every system has that */
    sigset_t pending;
    int unused;
    if (sigpending(&pending) == 0 && sigismember(&pending, number) == 1)
        sigwait(&set, &unused);
#endif
}

void pw_write_signals_release(const sigset_t *before, bool whole)
{
    int error = errno;
    for (int i = 0; i < PW_WRITE_SIGNALS && !whole; i++)
        if (!sigismember(before, pw_write_signals[i]))
            pw_signal_discard(pw_write_signals[i]);
    pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = error;
}

/* ------------------------------------------------------------------ what was built */

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
/* PW_PARSER_HASH and PW_SANITIZERS come from the build (tools/flags.py). */
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
