/* Readiness: a way to wait for sockets, and the one that is chosen. */
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
    void *tag; /* borrowed: what was given to pw_poll_add */
    int what;  /* PW_READABLE ... */
} pw_event;

#define PW_EVENTS_MOST 256

typedef enum {
    PW_POLL_EDGES, /* a connection: both directions; each change is told once */
    /* The wake-up: reading only, told as long as there is something, and before what came later. */
    PW_POLL_LEVEL,
    /* A listening socket, level too. Where several processes wait for it a connection may wake only
     * one of them, and who was woken has to accept it: nobody else will be told. */
    PW_POLL_LISTENER,
} pw_poll_kind;

typedef struct pw_poll pw_poll;

/* A way to wait; what each does is said below. */
typedef struct {
    const char *name;
    int (*open)(pw_poll *poll);
    void (*close)(pw_poll *poll);
    void (*forked)(pw_poll *poll); /* in a forked child: closes, and leaves what is the parent's */
    int (*add)(pw_poll *poll, int fd, void *tag, pw_poll_kind kind);
    int (*want)(pw_poll *poll, int fd, void *tag, int what); /* NULL: it tells all unasked */
    void (*remove)(pw_poll *poll, int fd);
    int (*wait)(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout);
} pw_poller;

/* One of them, open. One thread at a time may wait; the rest is for one thread at a time too, which
 * may be another one, and takes effect while the first one waits. All zero is closed. */
struct pw_poll {
    const pw_poller *poller;     /* borrowed; NULL: not open */
    int fd;                      /* owned: of epoll(7) or kqueue(2); -1: there is none */
    struct pw_poll_table *table; /* owned: of poll(2) */
};

#if PW_HAS_EPOLL
extern const pw_poller pw_poller_epoll;
#endif
#if PW_HAS_KQUEUE
extern const pw_poller pw_poller_kqueue;
#endif
extern const pw_poller pw_poller_poll;

/* By its name, or the best one for NULL and "auto"; ENOTSUP: this build has none of that name. All
 * return 0, or an errno. */
int pw_poll_open(pw_poll *poll, const char *name);
void pw_poll_close(pw_poll *poll);
void pw_poll_forked(pw_poll *poll);
int pw_poll_add(pw_poll *poll, int fd, void *tag, pw_poll_kind kind);
/* A connection has met the end of what it could read (PW_READABLE) or write (PW_WRITABLE), or
 * neither: only of these it need be told from now on, and when its peer has gone away. */
static inline int pw_poll_want(pw_poll *poll, int fd, void *tag, int what)
{
    return poll->poller->want != NULL ? poll->poller->want(poll, fd, tag, what) : 0;
}
void pw_poll_remove(pw_poll *poll, int fd);
/* Waits; timeout in ms, -1 for ever. Returns how many events; 0 also after a signal, or when it has
 * to be asked again. */
int pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout);

#endif
