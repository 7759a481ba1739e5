/*
 * The poller for kqueue(2). A connection is registered for reading once, by edges (EV_CLEAR). It is
 * registered for writing each time that its socket is full, because otherwise each acknowledgement
 * of the peer would be an event.
 */
#include "poller.h"

#if PW_HAS_KQUEUE
#include <sys/event.h>

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static int poll_open(pw_poll *poll)
{
    poll->fd = kqueue();
    if (poll->fd < 0)
        return errno;
    fcntl(poll->fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

static void poll_forked(pw_poll *poll)
{
    (void)poll; /* a child does not inherit the descriptor */
}

static void poll_close(pw_poll *poll)
{
    close(poll->fd);
}

static int poll_add(pw_poll *poll, int fd, void *tag, pw_poll_kind kind)
{
    struct kevent change;
    EV_SET(&change, (uintptr_t)fd, EVFILT_READ, EV_ADD | (kind == PW_POLL_EDGES ? EV_CLEAR : 0), 0,
           0, tag);
    return kevent(poll->fd, &change, 1, NULL, 0, NULL) < 0 ? errno : 0;
}

static int poll_want(pw_poll *poll, int fd, void *tag, int what)
{
    if ((what & PW_WRITABLE) == 0)
        return 0;
    struct kevent change;
    EV_SET(&change, (uintptr_t)fd, EVFILT_WRITE, EV_ADD | EV_ONESHOT, 0, 0, tag);
    return kevent(poll->fd, &change, 1, NULL, 0, NULL) < 0 ? errno : 0;
}

static void poll_remove(pw_poll *poll, int fd)
{
    struct kevent changes[2]; /* the second one may not exist, and an error ends the list */
    EV_SET(&changes[0], (uintptr_t)fd, EVFILT_READ, EV_DELETE, 0, 0, NULL);
    EV_SET(&changes[1], (uintptr_t)fd, EVFILT_WRITE, EV_DELETE, 0, 0, NULL);
    kevent(poll->fd, changes, 2, NULL, 0, NULL);
}

static int poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout)
{
    struct kevent found[PW_EVENTS_MOST];
    const struct timespec wait = {timeout / 1000, timeout % 1000 * 1000000L};
    int count = kevent(poll->fd, NULL, 0, found, PW_EVENTS_MOST, timeout < 0 ? NULL : &wait);
    for (int i = 0; i < count; i++) {
        bool ends = (found[i].flags & EV_EOF) != 0;
        int what = PW_WRITABLE; /* also at its end: a write will report the error */
        if (found[i].filter == EVFILT_READ)
            what = ends ? PW_READABLE | PW_HALF_CLOSED : PW_READABLE;
        if (ends && found[i].fflags != 0) /* the error of the socket */
            what |= PW_GONE_AWAY;
        events[i] = (pw_event){found[i].udata, what};
    }
    return count < 0 ? 0 : count;
}

const pw_poller pw_poller_kqueue = {
    .name = "kqueue",
    .open = poll_open,
    .close = poll_close,
    .forked = poll_forked,
    .add = poll_add,
    .want = poll_want,
    .remove = poll_remove,
    .wait = poll_wait,
};
#endif
