/* Readiness by epoll(7). A connection is registered once, edge-triggered, and never changed. */
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "conn.h"

int pw_poll_open(pw_poll *poll)
{
    poll->fd = epoll_create1(EPOLL_CLOEXEC);
    return poll->fd < 0 ? errno : 0;
}

void pw_poll_close(pw_poll *poll)
{
    if (poll->fd >= 0)
        close(poll->fd);
    poll->fd = -1;
}

static int pw_poll_register(pw_poll *poll, int fd, void *tag, uint32_t mask)
{
    struct epoll_event event = {.events = mask, .data.ptr = tag};
    return epoll_ctl(poll->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? errno : 0;
}

int pw_poll_add(pw_poll *poll, int fd, void *tag)
{
    return pw_poll_register(poll, fd, tag, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

int pw_poll_add_level(pw_poll *poll, int fd, void *tag)
{
    return pw_poll_register(poll, fd, tag, EPOLLIN);
}

int pw_poll_add_listener(pw_poll *poll, int fd, void *tag)
{
    /* One of the processes that wait is enough for a connection. */
    return pw_poll_register(poll, fd, tag, EPOLLIN | EPOLLEXCLUSIVE);
}

void pw_poll_remove(pw_poll *poll, int fd)
{
    struct epoll_event unused = {.events = 0, .data.ptr = NULL};
    epoll_ctl(poll->fd, EPOLL_CTL_DEL, fd, &unused);
}

int pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout)
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
