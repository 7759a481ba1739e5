/* The poller for epoll(7). A connection is registered once, edge-triggered, and never changed. */
#include "poller.h"

#if PW_HAS_EPOLL
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

static int poll_open(pw_poll *poll)
{
    poll->fd = epoll_create1(EPOLL_CLOEXEC);
    return poll->fd < 0 ? errno : 0;
}

static void poll_close(pw_poll *poll)
{
    close(poll->fd);
}

static int poll_add(pw_poll *poll, int fd, void *tag, pw_poll_kind kind)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    switch (kind) {
    case PW_POLL_EDGES:
        event.events |= EPOLLOUT | EPOLLRDHUP | EPOLLET;
        break;
    case PW_POLL_LEVEL:
        break;
    case PW_POLL_LISTENER: /* a connection has to wake one of the waiting processes only */
        event.events |= EPOLLEXCLUSIVE;
        break;
    }
    return epoll_ctl(poll->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? errno : 0;
}

static void poll_remove(pw_poll *poll, int fd)
{
    struct epoll_event unused = {.events = 0, .data.ptr = NULL};
    epoll_ctl(poll->fd, EPOLL_CTL_DEL, fd, &unused);
}

static int poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout)
{
    struct epoll_event found[PW_EVENTS_MOST];
    int count = epoll_wait(poll->fd, found, PW_EVENTS_MOST, timeout);
    for (int i = 0; i < count; i++) {
        uint32_t mask = found[i].events;
        int what = 0;
        if (mask & EPOLLIN)
            what |= PW_READABLE;
        if (mask & EPOLLOUT)
            what |= PW_WRITABLE;
        if (mask & EPOLLRDHUP)
            what |= PW_READABLE | PW_HALF_CLOSED;
        if (mask & (EPOLLHUP | EPOLLERR))
            what |= PW_GONE_AWAY;
        events[i] = (pw_event){found[i].data.ptr, what};
    }
    return count < 0 ? 0 : count;
}

const pw_poller pw_poller_epoll = {
    .name = "epoll",
    .open = poll_open,
    .close = poll_close,
    .forked = poll_close, /* closes this process's descriptor only */
    .add = poll_add,
    .want = NULL,
    .remove = poll_remove,
    .wait = poll_wait,
};
#endif
