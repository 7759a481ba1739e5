/* Pollers: the ways to wait for sockets, and the one that was chosen. */
#ifndef PW_POLLER_H
#define PW_POLLER_H

#include "system.h"

#if PW_LINUX
#define PW_HAS_EPOLL 1
#else
#define PW_HAS_EPOLL 0
#endif
#if !PW_LINUX && __has_include(<sys/event.h>)
#define PW_HAS_KQUEUE 1
#else
#define PW_HAS_KQUEUE 0
#endif

enum { PW_READABLE = 1, PW_WRITABLE = 2, PW_HALF_CLOSED = 4, PW_GONE_AWAY = 8 };

typedef struct {
    void *tag; /* borrowed: the tag given to pw_poll_add */
    int what;  /* PW_READABLE ... */
} pw_event;

#define PW_EVENTS_MOST 256

typedef enum {
    PW_POLL_EDGES, /* a connection: both directions; each edge is reported once */
    /* The pipe that wakes the loop. Only reading, reported while there
     * are bytes, and before later events. */
    PW_POLL_LEVEL,
    /* A listening socket, reported while connections wait. If several processes wait for it, a
     * connection may wake only one of them. That process has to accept it, because no other is
     * woken. */
    PW_POLL_LISTENER,
} pw_poll_kind;

typedef struct pw_poll pw_poll;

/* A kind of poller. The functions below explain what each member does. */
typedef struct {
    const char *name;
    int (*open)(pw_poll *poll);
    void (*close)(pw_poll *poll);
    void (*forked)(pw_poll *poll); /* in a forked child: closes the child's descriptors only */
    int (*add)(pw_poll *poll, int fd, void *tag, pw_poll_kind kind);
    int (*want)(pw_poll *poll, int fd, void *tag, int what);
    void (*remove)(pw_poll *poll, int fd);
    int (*wait)(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout);
} pw_poller;

/* An open poller. One thread at a time may wait. One thread at a time may call the other functions,
 * also while the first one waits: their effect is immediate. All zero is closed. */
struct pw_poll {
    const pw_poller *poller;     /* borrowed; NULL: not open */
    int fd;                      /* owned: of epoll(7) or kqueue(2); -1: none */
    struct pw_poll_table *table; /* owned: of poll(2); NULL: none */
};

#if PW_HAS_EPOLL
extern const pw_poller pw_poller_epoll;
#endif
#if PW_HAS_KQUEUE
extern const pw_poller pw_poller_kqueue;
#endif
extern const pw_poller pw_poller_poll;

/* Opens the poller with this name, or the best one for NULL and "auto". ENOTSUP: this build has
 * no poller with this name. All functions that return int, except pw_poll_wait, return 0 or an
 * errno. */
int pw_poll_open(pw_poll *poll, const char *name);
void pw_poll_close(pw_poll *poll);
void pw_poll_forked(pw_poll *poll);
int pw_poll_add(pw_poll *poll, int fd, void *tag, pw_poll_kind kind);
/* The loop has read (PW_READABLE) or written (PW_WRITABLE) until the call would block. From now on
 * the poller has to report only these edges, and that the peer has disconnected. */
static inline int pw_poll_want(pw_poll *poll, int fd, void *tag, int what)
{
    return poll->poller->want != NULL ? poll->poller->want(poll, fd, tag, what) : 0;
}
void pw_poll_remove(pw_poll *poll, int fd);
/* Waits for timeout ms; -1: no limit. Returns the number of events. It is 0 also after a signal, or
 * when the caller has to wait again. */
int pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout);

#endif
