/* What a worker process asks of the system. */
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

static sigset_t pw_pipe_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    return set;
}

sigset_t pw_pipe_signal_hold(void)
{
    sigset_t set = pw_pipe_signal(), before;
    pthread_sigmask(SIG_BLOCK, &set, &before);
    return before;
}

void pw_pipe_signal_release(const sigset_t *before, bool whole)
{
    int error = errno;
    if (!whole && !sigismember(before, SIGPIPE)) {
        const sigset_t set = pw_pipe_signal();
        const struct timespec none = {0, 0};
        sigtimedwait(&set, NULL, &none);
    }
    pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = error;
}
