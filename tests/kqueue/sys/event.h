/*
 * The part of kqueue(2) that csrc/poll_kqueue.c needs, made of epoll(7), for tests on a system
 * without kqueue(2). It behaves as on the BSDs. Reading and writing are filters of their own.
 * EV_CLEAR reports a change once; without it a state is reported while it lasts. EV_ADD reports
 * what is there already. EV_EOF comes with the socket's error. A list of changes ends at the first
 * one that fails.
 */
#ifndef PW_TESTS_EVENT_H
#define PW_TESTS_EVENT_H

#include <stdint.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_EOF 0x8000

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags; /* EV_EOF: the error of the socket, or 0 */
    intptr_t data;       /* bytes to read; EVFILT_WRITE: 1 */
    void *udata;
};

#define EV_SET(event, ident_, filter_, flags_, fflags_, data_, udata_)                             \
    (*(event) = (struct kevent){.ident = (ident_),                                                 \
                                .filter = (filter_),                                               \
                                .flags = (unsigned short)(flags_),                                 \
                                .fflags = (fflags_),                                               \
                                .data = (data_),                                                   \
                                .udata = (udata_)})

int kqueue(void);
int kevent(int queue, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout);
/* Call it instead of close(2). */
int kqueue_close(int queue);
#define close(queue) kqueue_close(queue)

#endif
