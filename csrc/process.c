/* What a worker process asks of the system. */
#include <errno.h>
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
