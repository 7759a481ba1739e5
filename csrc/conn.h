/*
 * One connection and what it is made of, with sockets and clocks. The files, each knowing those above
 * it:
 *
 *     system      what systems do differently   poll, poll_*  readiness
 *     timeout     who has waited too long       content   where content is kept
 *     process     what a process asks for       send      bytes out
 *     recv        bytes in                      answer    what the core itself answers
 *     conn_end    a connection waits, or ends   conn_keep what it keeps while it waits
 *     conn        its states
 *
 * What brings connections together is in server.h.
 */
#ifndef PW_CONN_H
#define PW_CONN_H

#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core.h"

/* The outcome of every call that does I/O. */
typedef enum {
    PW_IO_OK,
    PW_IO_RETRY, /* the socket would block: its edge will come */
    PW_IO_END,   /* the peer has closed its sending side */
    PW_IO_ERROR, /* the connection cannot be used any more; errno says why: ENOMEM also for want of
                  * our own memory, ENODATA for a file that has become too short */
} pw_io;

/* ------------------------------------------------------------------ system.c */

/* PW_PORTABLE leaves out what only Linux has, so that the other forms can be tested there. */
#if defined(__linux__) && !defined(PW_PORTABLE)
#define PW_LINUX 1
#else
#define PW_LINUX 0
#endif

/* What poll(2) says of a peer that is gone altogether. */
#ifndef __APPLE__
#define PW_POLL_GONE (POLLHUP | POLLERR | POLLNVAL)
#else /* where POLLHUP can be half a close */
#define PW_POLL_GONE (POLLERR | POLLNVAL)
#endif

/* A pipe that neither end of waits, closed at execve(2). 0, or an errno. */
int pw_pipe(int ends[2]);
/* accept(2): the connection does not wait either, and is closed at execve(2). */
int pw_accept_from(int listener, struct sockaddr_storage *peer, socklen_t *size);
/* Has writing to a socket raise no SIGPIPE, where that is a property of the socket. */
void pw_no_pipe_signal(int fd);
/* sendmsg(2) and send(2) without SIGPIPE: an application may have given that its default back. */
ssize_t pw_send_message(int fd, const struct msghdr *message, int flags);
ssize_t pw_send_bytes(int fd, const char *data, size_t size);
/* recvmsg(2); descriptors that come are closed at execve(2). Takes one at most. */
ssize_t pw_receive_message(int fd, struct msghdr *message, int flags);
/* Sends from a file, which is not moved; *offset is. Without SIGPIPE, as above. */
ssize_t pw_send_file_part(int fd, int file, off_t *offset, size_t size);
/* How many bytes the system has taken and the peer has not yet; 0 where it does not say. */
int pw_unsent(int fd);
/* How a client's connection ends. */
typedef enum {
    PW_ENDING_ORDERLY, /* what was sent arrives, and then the end of it */
    PW_ENDING_RESET,   /* the client is not to take what it has got for all there is */
    PW_ENDING_LEFT,    /* another process goes on with it */
} pw_ending;

/* Ends and closes a connection of this family; the only way in which that is done. A process that the
 * application has forked may have the descriptor too, so to close it tells the client nothing. Unix
 * sockets know no reset: there it is an orderly end. */
void pw_end_connection(int fd, int family, pw_ending ending);
/* Whether the peer is gone altogether: it has reset the connection, or both sides are shut. */
bool pw_peer_is_gone(int fd);
/* Whether the peer has closed its side, or is gone; may not see it behind data that nobody read. */
bool pw_peer_has_left(int fd);
/* What a thread has used. */
typedef struct {
    int64_t wall;     /* ns, of the monotonic clock */
    int64_t cpu;      /* ns of CPU time; -1: not asked for */
    int64_t process;  /* the same of all threads of the process */
    int64_t switches; /* voluntary ones; any number where that is not known */
} pw_usage;

int64_t pw_nanoseconds(void);
/* Of the calling thread. */
pw_usage pw_thread_usage(void);
/* The calling thread, for pw_thread_cpu; -1 where the system does not say. */
int64_t pw_thread_id(void);
/* The CPU time of a thread in ns; -1 where the system does not say, or the thread has ended. */
int64_t pw_thread_cpu(int64_t thread);
/* To be waited for by pw_condition_wait alone. */
void pw_condition_init(pthread_cond_t *condition);
/* False: nobody has signalled it in this time, less than a second. */
bool pw_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, long nanoseconds);

/* ------------------------------------------------------------------ poll.c, poll_*.c */

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

/* ------------------------------------------------------------------ timeout.c */

typedef enum {
    PW_TIMER_HEAD,
    PW_TIMER_BODY,
    PW_TIMER_WRITE,
    PW_TIMER_KEEP_ALIVE,
    PW_TIMER_LINGER,
    PW_TIMER_RESET,
    PW_TIMER_DRAIN,
    PW_TIMER_QUEUE,
    PW_TIMER_KINDS,
    PW_TIMER_NONE = PW_TIMER_KINDS,
} pw_timer_kind;

/* In a connection. Times of one kind are all the same length, so a list of each is in order. */
typedef struct pw_timer {
    struct pw_timer *next, *previous; /* borrowed: neighbours in the ring */
    int64_t due;                      /* ms */
    pw_timer_kind kind;
} pw_timer;

typedef struct {
    pw_timer rings[PW_TIMER_KINDS];
    int64_t length[PW_TIMER_KINDS]; /* ms */
    int64_t now;                    /* ms, of the last pw_timers_tick */
    int64_t polled;                 /* ms: what had come by then has been looked at */
} pw_timers;

/* Milliseconds of the monotonic clock. */
int64_t pw_now(void);
void pw_timers_init(pw_timers *timers);
void pw_timers_tick(pw_timers *timers);
/* Starts again when it runs. */
void pw_timer_start(pw_timers *timers, pw_timer *timer, pw_timer_kind kind);
void pw_timer_stop(pw_timer *timer);
/* One that was due when the poller was last asked, or NULL; it goes on running. */
pw_timer *pw_timers_due(pw_timers *timers);
/* The one that runs longest, but for those up to `after`, where that is not NULL; NULL: none. */
pw_timer *pw_timers_next(pw_timers *timers, pw_timer_kind kind, const pw_timer *after);
/* Until the next is due, in ms; -1: none runs. */
int64_t pw_timers_wait(const pw_timers *timers);

/* ------------------------------------------------------------------ content.c */

/* The content of one request. Owned by its connection. */
typedef struct {
    int64_t length; /* that will come; -1: chunked, not known */
    int64_t size;   /* that is here */
    char *memory;   /* owned; NULL once it is in the file */
    size_t room;    /* of memory */
    int file;       /* owned; -1 while it is in memory */
    pw_chunked chunked;
} pw_content;

/* Where content goes, of requests and of responses. */
typedef struct {
    int64_t memory_most;      /* of one request */
    int64_t memory_total;     /* of all */
    int64_t held;             /* of memory_total; guarded by the server's lock */
    int64_t size_most;        /* of one request; 0: no limit */
    int64_t spool_most;       /* of one response, in a file */
    int64_t spool_total;      /* of all */
    _Atomic(int64_t) spooled; /* of spool_total: the size of all files */
    const char *directory;    /* borrowed from the server */
} pw_store;

/* A file without a name, or -1 with errno set. */
int pw_temporary_file(const char *directory);
/* Writes all of the parts, which are used up, from this offset on. False with errno set. */
bool pw_write_parts(int fd, struct iovec *parts, int count, off_t offset);

/* length -1: chunked. NULL: out of memory. */
pw_content *pw_content_new(int64_t length);
void pw_content_free(pw_content *content, pw_store *store);
/* Where the next bytes, as they come, can be put by the caller, who then adds to size; NULL: they are
 * for pw_content_take. size: no more than is still to come. */
char *pw_content_space(pw_content *content, pw_store *store, size_t size);
/* Adds decoded bytes. PW_E_STORAGE: errno says why. */
pw_error pw_content_add(pw_content *content, pw_store *store, const char *data, size_t size);
/*
 * Takes what belongs to the content from data[0, size): *used says how much. PW_PARSE_DONE when the
 * content is complete.
 */
pw_parse pw_content_take(pw_content *content, pw_store *store, const char *data, size_t size,
                         size_t *used, pw_error *error);

/* ------------------------------------------------------------------ process.c */

/*
 * Around a call that writes. It may raise SIGPIPE or SIGXFSZ (a file that has reached RLIMIT_FSIZE).
 * Python ignores both, and they would end the process where an application has given them their
 * defaults back. They are not left blocked: programs that the application starts would have them so.
 */
sigset_t pw_write_signals_hold(void);
/* With what hold has returned; errno is kept. whole: the call has written all that it was to write;
 * with less of it, too, a signal may have been raised. */
void pw_write_signals_release(const sigset_t *before, bool whole);

/* ------------------------------------------------------------------ send.c */

/*
 * A piece of output that the socket has not taken yet: bytes copied, bytes borrowed, or a file.
 *
 * Borrowed bytes are Python's, and belong to one exchange. They are good during the call that has
 * handed them over; a piece that is still there when the call returns is copied (pw_output_own),
 * unless Python has lent the bytes for that exchange (pw_request.lends). Then they are good until
 * PW_NEWS_SENT has named the exchange, which the core does when no borrowed piece is left.
 */
typedef struct pw_piece {
    struct pw_piece *next; /* owned */
    const char *at;        /* into own, or borrowed */
    size_t left;
    int file; /* owned, or pw_output.spool; -1: bytes */
    off_t offset;
    bool borrowed;
    bool spooled; /* in pw_output.spool */
    size_t room;  /* of own */
    char own[];
} pw_piece;

/*
 * What a client has not taken yet, in order. The spool is a file without a name, for what a stream makes
 * faster than its client reads: it is made when it is needed, emptied when all of it is sent, and
 * closed with the response.
 */
typedef struct {
    pw_piece *first, *last;
    int64_t size;     /* bytes in all pieces */
    int32_t borrowed; /* how many pieces are borrowed */
    int spool;        /* owned: the file; good only with `store` */
    pw_store
        *store; /* borrowed from the server: where spool_size is counted; NULL: there is no file */
    int64_t spool_size;   /* bytes in the file, sent ones too */
    int64_t unsent_spool; /* those that are not sent */
} pw_output;

/* False: out of memory. */
bool pw_output_copy(pw_output *output, const char *data, size_t size);
bool pw_output_borrow(pw_output *output, const char *data, size_t size);
bool pw_output_file(pw_output *output, int fd, off_t offset, size_t size);
void pw_output_free(pw_output *output);
/* Copies what is borrowed. False: out of memory. */
bool pw_output_own(pw_output *output);
/* Adds parts by way of the spool. False: it has no room for them, or the disk has not. */
#define PW_SPOOL_PARTS 3
bool pw_output_spool(pw_output *output, pw_store *store, const struct iovec *parts, int count);
/* Nothing is in the spool: it is closed. */
void pw_output_close_spool(pw_output *output);
/* OK: what is left, if anything, can be tried again at once. *progress: something went out. */
pw_io pw_output_flush(pw_output *output, int fd, bool *progress);
/* Sends what goes out at once, if nothing else waits. RETRY: *parts and *count are the rest. */
pw_io pw_output_try(pw_output *output, int fd, struct iovec **parts, int *count);
/* Keeps parts: up to PW_COPY_MOST bytes of one are copied, more are borrowed. False: out of memory. */
bool pw_output_keep(pw_output *output, const struct iovec *parts, int count);
/* Writes parts[0, count); what does not go out now is kept. */
pw_io pw_output_write(pw_output *output, int fd, struct iovec *parts, int count);

/* ------------------------------------------------------------------ conn_end.c */

typedef enum {
    PW_CONN_IDLE,    /* nothing of the next request is here; holds no buffer */
    PW_CONN_HEAD,    /* some of its head is here */
    PW_CONN_CONTENT, /* the head is here, its content is coming */
    PW_CONN_READY,   /* it is complete, and all threads are busy: in server->ready */
    PW_CONN_APP,     /* the application has it: only its thread touches the connection */
    PW_CONN_SENDING, /* the application has finished, the client has not got everything */
    PW_CONN_LINGER,  /* all is sent, and on its way; the client's rest is thrown away */
    PW_CONN_CLOSED,  /* closed; freed when no event of it can be left */
} pw_conn_state;

/* Made by accept, freed by the loop after the batch of events in which it was closed. */
typedef struct pw_conn {
    int fd;
    pw_conn_state state;
    int what;        /* edges seen and not used up: PW_READABLE ... */
    bool registered; /* with the poller */
    bool queued;     /* in one of the server's queues */
    bool close;      /* after this response */
    bool started;    /* the response's head is handed over */
    bool no_content; /* the response must have none: HEAD, 204, 304 */
    bool chunked;    /* the response is */
    bool unframed;   /* the response ends with the connection */
    bool waits;      /* output waits for the next of the requests received together */
    bool failed;     /* writing has failed: the client is gone */
    bool reset;      /* its end is to be a reset: an orderly one would pass for the content's */
    uint8_t kind;    /* of the request: PW_SAME ... */
    uint8_t listener;
    int16_t entry;  /* of the cache, or -1 */
    int32_t served; /* requests handed to Python */
    int64_t id;
    pw_buffer *in;             /* owned; NULL: nothing received is left */
    size_t used;               /* of in, from its start: the head and content already taken */
    pw_head_progress progress; /* with the head there */
    pw_content *content;       /* owned, from head to the end of the response */
    pw_facts facts;            /* of the request at hand */
    pw_output output;
    int64_t loan; /* the exchange whose lent bytes the output may hold; 0: it holds none */
    char *line;   /* owned: of the request whose response is on its way, for notices; or NULL */
    bool gathers; /* the watcher sends its output while the application makes more */
    int64_t gather_due;     /* tick: when it does */
    int64_t sent_tick;      /* when data was sent last; -1: none of this response */
    int unsent;             /* pw_unsent when it was last asked for */
    int status;             /* of the response */
    int64_t promised;       /* Content-Length of a response in parts; -1: none */
    int64_t bytes;          /* of its content */
    int64_t left_at;        /* ms: when pw_check_client first found half a close; 0: never */
    int64_t ready_us;       /* when it became PW_CONN_READY; with an access log only */
    int64_t slice;          /* server->polls when its slice of the loop's time began */
    int64_t slice_since;    /* ms: the same */
    int32_t slice_requests; /* what it has had of it */
    int64_t slice_bytes;
    int64_t linger_left;  /* bytes that will still be thrown away */
    int64_t linger_until; /* ms: not longer than this; where a reset is to come, without progress */
    pw_timer timer;
    struct pw_conn *run_next;        /* borrowed */
    struct pw_conn *next, *previous; /* borrowed: all connections of the server */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer;
} pw_conn;

static inline pw_conn *pw_conn_of(pw_timer *timer)
{
    return (pw_conn *)(void *)((char *)timer - offsetof(pw_conn, timer));
}

/* The outcome of a step; each state has one. */
typedef enum { PW_STEP_ON, PW_STEP_WAIT, PW_STEP_REQUEST } pw_step;

/* Nothing can be done now: the poller has to know the connection, and a timer runs. */
pw_step pw_conn_wait(pw_server *server, pw_conn *conn, pw_timer_kind kind, bool restart);
void pw_conn_release_buffer(pw_server *server, pw_conn *conn);
/* How many bytes are received and not taken yet. */
size_t pw_conn_unused(const pw_conn *conn);
/* Gives up its entry in the cache of heads. */
void pw_conn_forget(pw_server *server, pw_conn *conn);
/* Nothing of the response is left in the output: Python need not keep what it has lent for it. */
void pw_conn_sent(pw_server *server, pw_conn *conn);
/* Ends it now: by a reset where that is asked for, or where output is left, so that no client takes a
 * part for the whole; otherwise in an orderly way. */
void pw_conn_close(pw_server *server, pw_conn *conn);
/* Another process has it now, and goes on with it. */
void pw_conn_leave(pw_server *server, pw_conn *conn);
/* Ends it as soon as its client can have all that was sent: now, or in PW_CONN_LINGER. */
pw_step pw_conn_part(pw_server *server, pw_conn *conn);
/* Its response ends here, though its client is still there: that gets what was sent before, and then a
 * reset. What pw_conn_part returns. */
pw_step pw_conn_break_off(pw_server *server, pw_conn *conn);
/* The end of a connection that cannot go on; errno says why. */
pw_step pw_conn_fail(pw_server *server, pw_conn *conn);
pw_step pw_step_linger(pw_server *server, pw_conn *conn);
/* Answers with an error, and nothing more is read as a request. */
void pw_conn_refuse(pw_server *server, pw_conn *conn, pw_error error);
/* The same for one that waits, and is not the connection that the loop is at. */
void pw_conn_refuse_waiting(pw_server *server, pw_conn *conn, pw_error error);
/* Whether nothing of its client's next request is here; one that has just come is gone on with. */
bool pw_conn_is_idle(pw_server *server, pw_conn *conn);
/* Whether its client has what it was sent, or will have it though the connection is closed. */
bool pw_conn_is_served(const pw_conn *conn);
/* The server drains: a connection that waits for its client's next request may have to go. */
void pw_conn_drain(pw_server *server, pw_conn *conn);
/* Its timer has run out. */
void pw_conn_timeout(pw_server *server, pw_conn *conn);

/* ------------------------------------------------------------------ conn_keep.c */

/*
 * The connection waits with what it has received, and keeps no more memory than that takes. Where all
 * keep more than head_memory, others give theirs up, or it does: it is then in another state.
 */
void pw_conn_keep(pw_server *server, pw_conn *conn);
/* The same where it need not wait long, or is wanted as it is: only while there is little left. */
void pw_conn_keep_shortly(pw_server *server, pw_conn *conn);

/* ------------------------------------------------------------------ conn.c */

typedef enum { PW_DRIVE_WAIT, PW_DRIVE_REQUEST } pw_drive;

/* Goes on with a connection until it waits, is closed, or has a complete request. */
pw_drive pw_conn_drive(pw_server *server, pw_conn *conn);
/* What the poller has said. */
void pw_conn_event(pw_server *server, pw_conn *conn, int what);
/* The application has finished with its request, its output may be on its way. */
void pw_conn_finished(pw_server *server, pw_conn *conn);

/* ------------------------------------------------------------------ recv.c */

/* Receives into conn->in, made when there is none; takes back PW_READABLE when all is read. */
pw_io pw_recv(pw_server *server, pw_conn *conn);
/* Receives into memory of the caller. */
pw_io pw_recv_into(pw_conn *conn, char *to, size_t room, size_t *got);

/* ------------------------------------------------------------------ answer.c */

/* The date line, made again each second. */
typedef struct {
    int64_t second;
    char date[48]; /* "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" */
    size_t size;
} pw_clock;

void pw_clock_tick(pw_clock *clock);
/* Room that pw_answer_tail needs. */
#define PW_TAIL_MOST 256
/* The framing fields after the application's, and the empty line; returns the bytes written. */
size_t pw_answer_tail(const pw_clock *clock, char *to, const pw_conn *conn, int32_t flags,
                      int64_t length);
/* The whole answer to a refused request; returns its size. */
#define PW_REFUSAL_MOST 512
size_t pw_answer_refusal(const pw_clock *clock, char *to, pw_error error, bool is_head);
int pw_error_status(pw_error error);
/* The whole answer to a question for --health or --health-live; at most PW_REFUSAL_MOST bytes. */
size_t pw_answer_health(const pw_clock *clock, char *to, const pw_conn *conn, bool unready);

#endif
