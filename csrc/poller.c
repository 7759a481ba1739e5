/* Chooses a poller: the first one of the build, or the one with a given name. */
#include <errno.h>
#include <string.h>

#include "poller.h"

static const pw_poller *const pollers[] = {
#if PW_HAS_EPOLL
    &pw_poller_epoll,
#endif
#if PW_HAS_KQUEUE
    &pw_poller_kqueue,
#endif
    &pw_poller_poll, /* available on every system */
};

#define PW_POLLER_COUNT ((int32_t)(sizeof pollers / sizeof pollers[0]))

const char *pw_poller_name(int32_t number)
{
    return number >= 0 && number < PW_POLLER_COUNT ? pollers[number]->name : NULL;
}

int pw_poll_open(pw_poll *poll, const char *name)
{
    bool any = name == NULL || strcmp(name, "auto") == 0;
    for (int32_t i = 0; i < PW_POLLER_COUNT; i++) {
        if (!any && strcmp(name, pollers[i]->name) != 0)
            continue;
        *poll = (pw_poll){.poller = pollers[i], .fd = -1, .table = NULL};
        int error = pollers[i]->open(poll);
        if (error != 0)
            poll->poller = NULL;
        return error;
    }
    return ENOTSUP;
}

void pw_poll_close(pw_poll *poll)
{
    if (poll->poller != NULL)
        poll->poller->close(poll);
    poll->poller = NULL;
}

void pw_poll_forked(pw_poll *poll)
{
    if (poll->poller != NULL)
        poll->poller->forked(poll);
    poll->poller = NULL;
}

int pw_poll_add(pw_poll *poll, int fd, void *tag, pw_poll_kind kind)
{
    return poll->poller->add(poll, fd, tag, kind);
}

void pw_poll_remove(pw_poll *poll, int fd)
{
    poll->poller->remove(poll, fd);
}

int pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout)
{
    return poll->poller->wait(poll, events, timeout);
}
