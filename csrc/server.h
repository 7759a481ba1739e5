/*
 * What has sockets and clocks. The files, each knowing those above it:
 *
 *     poll_*      readiness                     content   where content is kept
 *     timeout     who has waited too long       recv      bytes in
 *     send        bytes out                     conn      one connection's states
 *     answer      what the core itself answers  accept    new connections
 *     notice      what the error log is told    server    the loop
 *     request, respond   to Python, and back
 *
 * Threads: pw_server.lock guards the server and all that it owns, and is held by whoever runs the
 * loop, except while it waits for events. What is not under it:
 *
 *     a connection in PW_CONN_APP     belongs to the thread that has its request, but for `what`,
 *                                     `state`, `timer`, `queued` and the list pointers; `output`
 *                                     is the thread's own only from pw_send_head or pw_respond on
 *     server->stopping, server->wake, may be touched by anyone
 *     server->drain_until, requests
 *     limits, store, timers.length,   are not changed once the server listens
 *     response_buffer, threads_most
 */
#ifndef PW_SERVER_H
#define PW_SERVER_H

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

/* ------------------------------------------------------------------ poll_epoll.c */

enum { PW_READABLE = 1, PW_WRITABLE = 2, PW_HALF_CLOSED = 4, PW_GONE_AWAY = 8 };

typedef struct {
    void *tag; /* borrowed: what was given to pw_poll_add */
    int what;  /* PW_READABLE ... */
} pw_event;

typedef struct pw_poll {
    int fd;
} pw_poll;

#define PW_EVENTS_MOST 256

/* 0, or an errno. */
int pw_poll_open(pw_poll *poll);
void pw_poll_close(pw_poll *poll);
/* A connection: both directions, edges, once in its life. */
int pw_poll_add(pw_poll *poll, int fd, void *tag);
/* The wake-up: reading only, as long as there is something (level). */
int pw_poll_add_level(pw_poll *poll, int fd, void *tag);
/*
 * A listening socket, level too. Where several processes wait for it a connection wakes one of them,
 * and who was woken has to accept it: nobody else will be told.
 */
int pw_poll_add_listener(pw_poll *poll, int fd, void *tag);
void pw_poll_remove(pw_poll *poll, int fd);
/* Waits; timeout in ms, -1 for ever. Returns how many events, 0 also after a signal. */
int pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout);

/* ------------------------------------------------------------------ timeout.c */

typedef enum {
    PW_TIMER_HEAD,
    PW_TIMER_BODY,
    PW_TIMER_WRITE,
    PW_TIMER_KEEP_ALIVE,
    PW_TIMER_LINGER,
    PW_TIMER_DRAIN,
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
/* Starts anew when it runs. */
void pw_timer_start(pw_timers *timers, pw_timer *timer, pw_timer_kind kind);
void pw_timer_stop(pw_timer *timer);
/* One that was due when the poller was last asked, or NULL; it goes on running. */
pw_timer *pw_timers_due(pw_timers *timers);
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

/* Where content goes. */
typedef struct {
    int64_t memory_most;
    int64_t size_most;     /* 0: no limit */
    const char *directory; /* borrowed from the server */
} pw_store;

/* length -1: chunked. NULL: out of memory. */
pw_content *pw_content_new(int64_t length);
void pw_content_free(pw_content *content);
/* Adds decoded bytes. PW_E_STORAGE: errno says why. */
pw_error pw_content_add(pw_content *content, const pw_store *store, const char *data, size_t size);
/*
 * Takes what belongs to the content from data[0, size): *used says how much. PW_PARSE_DONE when the
 * content is complete.
 */
pw_parse pw_content_take(pw_content *content, const pw_store *store, const char *data, size_t size,
                         size_t *used, pw_error *error);

/* ------------------------------------------------------------------ process.c */

/*
 * Around a call that may raise SIGPIPE, which Python ignores, and which would end the process where
 * an application has given it its default back. It is not left blocked: programs that the
 * application starts would have it so.
 */
sigset_t pw_pipe_signal_hold(void);
/* With what hold has returned; errno is that of the call. */
void pw_pipe_signal_release(const sigset_t *before, bool failed);

/* ------------------------------------------------------------------ send.c */

/* A piece of output that the socket has not taken yet: bytes copied, bytes borrowed, or a file. */
typedef struct pw_piece {
    struct pw_piece *next; /* owned */
    const char *at;        /* into own, or borrowed from Python until the piece is gone */
    size_t left;
    int file; /* owned; -1: bytes */
    off_t offset;
    bool borrowed;
    size_t room; /* of own */
    char own[];
} pw_piece;

typedef struct {
    pw_piece *first, *last;
    int64_t size;     /* bytes in all pieces */
    int32_t borrowed; /* how many pieces are borrowed */
} pw_output;

/* False: out of memory. */
bool pw_output_copy(pw_output *output, const char *data, size_t size);
bool pw_output_borrow(pw_output *output, const char *data, size_t size);
bool pw_output_file(pw_output *output, int fd, off_t offset, size_t size);
void pw_output_free(pw_output *output);
/* OK: what is left, if anything, can be tried again at once. *progress: something went out. */
pw_io pw_output_flush(pw_output *output, int fd, bool *progress);
/* How many bytes the system has taken and the peer has not yet; 0 where it does not say. */
int pw_unsent(int fd);
/* Writes parts[0, count); what does not go out now is kept: up to PW_COPY_MOST bytes of a part are
 * copied, more are borrowed. */
pw_io pw_output_write(pw_output *output, int fd, struct iovec *parts, int count);

/* ------------------------------------------------------------------ conn.c */

typedef enum {
    PW_CONN_IDLE,    /* nothing of the next request is here; holds no buffer */
    PW_CONN_HEAD,    /* some of its head is here */
    PW_CONN_CONTENT, /* the head is here, its content is coming */
    PW_CONN_READY,   /* it is complete, and all threads are busy: in server->ready */
    PW_CONN_APP,     /* the application has it: only its thread touches the connection */
    PW_CONN_SENDING, /* the application has finished, the client has not got everything */
    PW_CONN_LINGER,  /* all is sent, our side is shut, the client's rest is thrown away */
    PW_CONN_CLOSED,  /* closed; freed when no event of it can be left */
} pw_conn_state;

/* Made by accept, freed by the loop after the batch of events in which it was closed. */
typedef struct pw_conn {
    int fd;
    pw_conn_state state;
    int what;        /* edges seen and not used up: PW_READABLE ... */
    bool registered; /* with the poller */
    bool queued;     /* in server->run or server->ready */
    bool close;      /* after this response */
    bool started;    /* the response's head is handed over */
    bool no_content; /* the response must have none: HEAD, 204, 304 */
    bool chunked;    /* the response is */
    bool unframed;   /* the response ends with the connection */
    bool waits;      /* output waits for the next of the requests received together */
    bool failed;     /* writing has failed: the client is gone */
    bool reset;      /* its end is to be a reset: an orderly one would pass for the content's */
    bool held;       /* Python keeps objects until PW_NEWS_SENT */
    uint8_t kind;    /* of the request: PW_SAME ... */
    uint8_t listener;
    int16_t entry;  /* of the cache, or -1 */
    int32_t served; /* requests handed to Python */
    int64_t id;
    pw_buffer *in;       /* owned; NULL: nothing received is left */
    size_t used;         /* of in, from its start: the head and content already taken */
    size_t scanned;      /* of in, from its start: looked at by the head parser */
    pw_content *content; /* owned, from head to the end of the response */
    pw_facts facts;      /* of the request at hand */
    pw_output output;
    char *line;       /* owned: of the request whose response is on its way, for notices; or NULL */
    int unsent;       /* pw_unsent when the write timer was started */
    int status;       /* of the response */
    int64_t bytes;    /* of its content */
    int64_t ready_us; /* when it became PW_CONN_READY; with an access log only */
    int64_t linger_left;  /* bytes that will still be thrown away */
    int64_t linger_until; /* ms */
    pw_timer timer;
    struct pw_thread *holder;        /* borrowed: is about to keep what is sent: pw_thread.hold */
    struct pw_conn *run_next;        /* borrowed */
    struct pw_conn *next, *previous; /* borrowed: all connections of the server */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer;
} pw_conn;

typedef enum { PW_DRIVE_WAIT, PW_DRIVE_REQUEST } pw_drive;

/* Goes on with a connection until it waits, is closed, or has a complete request. */
pw_drive pw_conn_drive(pw_server *server, pw_conn *conn);
/* What the poller has said. */
void pw_conn_event(pw_server *server, pw_conn *conn, int what);
/* The server drains: a connection that waits for its client's next request may have to go. */
void pw_conn_drain(pw_server *server, pw_conn *conn);
/* Its timer has run out. */
void pw_conn_timeout(pw_server *server, pw_conn *conn);
/* The application has finished with its request, its output may be on its way. */
void pw_conn_finished(pw_server *server, pw_conn *conn);
void pw_conn_close(pw_server *server, pw_conn *conn);
/* Answers with an error, and nothing more is read as a request. */
void pw_conn_refuse(pw_server *server, pw_conn *conn, pw_error error);
/* Gives up its entry in the cache of heads. */
void pw_conn_forget(pw_server *server, pw_conn *conn);

/* ------------------------------------------------------------------ recv.c */

/* Receives into conn->in, made when there is none; takes back PW_READABLE when all is read. */
pw_io pw_recv(pw_server *server, pw_conn *conn);
/* Receives into memory of the caller. */
pw_io pw_recv_into(pw_conn *conn, char *to, size_t room, size_t *got);

/* ------------------------------------------------------------------ answer.c */

/* The date line, made anew each second. */
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
/* The whole answer to a question for --health; at most PW_REFUSAL_MOST bytes. */
size_t pw_answer_health(const pw_clock *clock, char *to, const pw_conn *conn, bool draining);

/* ------------------------------------------------------------------ access.c */

/* Bytes that grow. */
typedef struct {
    char *at; /* owned */
    size_t size, room;
} pw_text;

typedef struct {
    int fd; /* borrowed; -1: no access log */
    bool json;
    bool wants_head; /* the program has fields of the response */
    char *program;   /* owned */
    size_t program_size;
    pw_text lines; /* not written yet */
    int64_t due;   /* ms: when they are to be; 0: there are none */
    char time[48];
    size_t time_size;
    int64_t second;
} pw_access;

/* What a line says of a response; times are microseconds. */
typedef struct {
    int status;
    int64_t bytes, duration, queued;
} pw_exchange;

int64_t pw_microseconds(void);
/* Runs the program for a request; *to is what the response has to complete. */
void pw_access_request(pw_server *server, pw_text *to, const pw_head *head, const pw_peer *peer);
/* Puts the fields of a response's head into a program that pw_access_request has made. */
void pw_access_head(pw_server *server, pw_text *program, const char *head, size_t size);
/* Adds a line. */
void pw_access_line(pw_server *server, const char *program, size_t size, const pw_exchange *what);
void pw_access_flush(pw_access *access);

/* ------------------------------------------------------------------ notice.c */

typedef struct {
    pw_notice *at; /* owned: at[first, count) are waiting */
    size_t first, count, room;
    int64_t lost; /* for want of memory */
} pw_notices;

/* False: out of memory. */
bool pw_notices_init(pw_notices *notices);
/* Whether pw_notice_take has something to say. */
bool pw_notices_wait(const pw_notices *notices);
/* What the request of this connection has met; PW_NOTICE_ERROR: whatever `error` means, and nothing
 * where it only means that the client has gone. */
void pw_notice_conn(pw_server *server, const pw_conn *conn, int what, int error);
/* The same while a thread is at the request. */
void pw_notice_thread(const pw_thread *thread, const pw_conn *conn, int what, int error);
/* One more of which nothing can be told. */
void pw_notice_lost(pw_server *server);
/* Keeps the request line of the request that the thread takes, for notices. */
void pw_thread_keep_line(pw_thread *thread, const pw_conn *conn);
/* The thread leaves a response behind that is not yet sent: the same for the connection. */
void pw_conn_keep_line(const pw_thread *thread, pw_conn *conn);

/* ------------------------------------------------------------------ accept.c */

typedef struct {
    int fd; /* owned, a duplicate; -1 once the server drains */
} pw_listener;

/* At most so many new connections, put into the run queue. */
void pw_accept(pw_server *server, pw_listener *listener, int most);
/* The same for what the poller has said. */
void pw_accept_event(pw_server *server, pw_listener *listener);
/* So many connections more, or less. */
void pw_accept_count(pw_server *server, int change);
void pw_accept_pause(pw_server *server);
/* Accepts again when it may. */
void pw_accept_resume(pw_server *server);
/* While this process leaves new connections to the others: for how long at most, in ms; else -1. */
int pw_accept_patience(pw_server *server);
/* The wait is over: it may be this process's turn after all. */
void pw_accept_waited(pw_server *server);
/* No new connections are for this process any more. */
void pw_accept_leave(pw_server *server);

/* ------------------------------------------------------------------ balance.c */

/* One process; written by itself, but for the end of process. */
typedef struct {
    atomic_int_least32_t process; /* its number; 0: the place is free */
    atomic_int_least32_t connections;
} pw_place;

/* NULL: there is none free. */
pw_place *pw_balance_join(pw_balance *balance);
void pw_balance_leave(pw_place *place);
/* Whether another process has so few connections that new ones should be its. */
bool pw_balance_is_ahead(const pw_balance *balance, const pw_place *own);

/* ------------------------------------------------------------------ server.c */

#define PW_LISTENERS_MOST 64
#define PW_SCRATCH_SIZE 131072

/* Linked by run_next: a connection is in one of them at most. */
typedef struct {
    pw_conn *first, *last; /* borrowed */
} pw_queue;

struct pw_server {
    pw_limits limits;
    pw_store store;
    int64_t response_buffer;
    int32_t max_connections;
    int32_t timeout_graceful;
    char *directory; /* owned */

    pw_poll poll;
    pw_event events[PW_EVENTS_MOST];
    int event_count, event_next;
    int wake[2];               /* a pipe: [1] written by pw_server_stop */
    atomic_int stopping;       /* how often pw_server_stop was called */
    _Atomic(int64_t) requests; /* handed out; read by pw_server_requests from any thread */
    bool draining;
    atomic_int_least64_t drain_until; /* ms; 0: nobody has seen yet that it is to stop */

    pw_listener listeners[PW_LISTENERS_MOST];
    int listener_count;
    bool paused;         /* accepting, for want of descriptors or room */
    int64_t resume_at;   /* ms; 0: when a connection is closed */
    pw_balance *balance; /* borrowed; NULL: no other process has the listening sockets */
    pw_place *place;     /* borrowed: its own in balance, or NULL */
    bool aside;          /* it has left accepting to the others */
    int64_t aside_until; /* ms */
    int turn;            /* how many connections it accepts before it looks at the others again */

    pw_conn *all; /* owned: the list of connections */
    int32_t conn_count;
    int64_t next_id;
    pw_conn *dead;  /* owned: closed, to be freed (linked by run_next) */
    pw_queue run;   /* connections to go on with */
    pw_queue ready; /* connections with a complete request, for the next thread */

    pw_timers timers;
    pw_pool pool;
    pw_cache cache;
    pw_clock clock;
    pw_field *fields; /* owned: max_fields, of the head parsed last */
    char *scratch;    /* owned: PW_SCRATCH_SIZE */

    pw_head head;    /* the head parsed last; its spans are good while `parsed` has it */
    pw_conn *parsed; /* borrowed: the connection of head, or NULL */

    int64_t *news; /* owned: what pw_news will tell */
    size_t news_count, news_room;
    pw_notices notices;

    pw_access access;
    int64_t polled_us; /* when the poller was last asked; with an access log only */
    char *health;      /* owned: the path that the core answers; empty: none */

    pthread_mutex_t lock;
    pw_thread *holder;     /* borrowed: has the token and runs the loop; NULL: nobody */
    bool holder_in_app;    /* it has taken a request and is not back */
    bool polling;          /* it waits for events, without the lock */
    int64_t polling_until; /* ms; -1: for ever */
    pw_thread *idle;       /* borrowed: threads that wait for the token, a stack */
    int32_t thread_count, threads_most;
    int32_t references;      /* pw_server_free and the threads: the last one frees the memory */
    int32_t taken_count;     /* threads that are in the application */
    pw_thread *threads;      /* borrowed: all of them */
    int64_t timeout_request; /* ms; 0: none */
    int block_score;         /* how much the application blocks: see token.c */
    pw_thread *watcher;      /* owned: stands for pw_watch as the holder; serves nothing */
    pthread_cond_t watch;    /* for pw_watch */
    int64_t ticks;           /* counted by pw_watch */
    bool is_watched;         /* pw_watch has been called */
    int64_t looked_at;       /* ms: when pw_watch last looked for slow requests */
    bool watcher_sleeps;     /* until the next request */
    bool wants_thread;       /* sooner than the next tick */
    bool stopped;            /* pw_next returns PW_STOP from now on */
};

struct pw_thread {
    pw_server *server; /* borrowed */
    pw_conn *conn;     /* borrowed: the request at hand, or NULL */
    pw_request request;
    pw_block block; /* its memory is owned */

    pthread_cond_t wake;  /* with the server's lock: it has been given the token, or the end */
    pw_thread *next_idle; /* borrowed */
    bool is_idle;         /* in server->idle */
    bool taken;           /* a request, and has not come back for the next */
    int64_t taken_tick;
    int64_t taken_at;          /* ms */
    int64_t taken_us;          /* with an access log only, like the next two */
    int64_t queued_us;         /* from complete to here */
    pw_text log;               /* what the access log says of the request */
    char line[PW_NOTICE_LINE]; /* its request line, or the beginning of it */
    size_t line_size;
    int32_t number;             /* the caller's */
    int warned;                 /* how often pw_watch has named the request at hand */
    pw_thread *next, *previous; /* borrowed: server->threads */
    pw_conn *hold;   /* borrowed until hold_sent: Python is about to keep what it sends */
    int64_t hold_id; /* its number; -1: none */
    bool hold_sent;  /* before Python was back */
};

/* One reference less. */
void pw_server_release(pw_server *server);
/* Goes on with a connection soon: first or last of those that wait for it. */
void pw_run(pw_server *server, pw_conn *conn, bool first);
/* Whether what is not over has to end now, because the server was stopped. */
bool pw_server_is_late(pw_server *server);
/* For pw_news. */
void pw_tell(pw_server *server, int64_t value, int kind);
/* The loop itself, by the holder; with the lock, which it lets go while it waits. The watcher gets
 * PW_IDLE when a thread that can serve waits for the token. */
int64_t pw_loop(pw_thread *thread);
/* Another thread has, perhaps, given the loop something to do. */
void pw_loop_wake(pw_server *server, bool always);

/* ------------------------------------------------------------------ token.c */

/* Waits for the token. False: the server has stopped. */
bool pw_token_take(pw_thread *thread);
/* The thread goes to the application with a request, and keeps the token if it can. */
void pw_token_keep(pw_thread *thread);
/* When the watcher, running the loop, has to look at the threads again: ms, 0: never. */
int64_t pw_watch_due(const pw_server *server);
/* Whether it has something else to do than to run the loop. */
bool pw_watch_is_wanted(const pw_server *server);
/* Ends all waiting: the server has stopped. */
void pw_token_stop(pw_server *server);

/* ------------------------------------------------------------------ request.c */

/* The client's address, as text. */
void pw_peer_name(const pw_conn *conn, pw_peer *peer);
/* Hands a complete request over: from here on the connection is the thread's. */
int64_t pw_thread_take(pw_thread *thread, pw_conn *conn);
/* The access log's line for the response that the thread has finished. */
void pw_thread_log(pw_thread *thread, const pw_conn *conn);
/* The same for a request that the core refuses. */
void pw_log_refusal(pw_server *server, pw_conn *conn, int status);

#endif
