/*
 * What brings the connections of a process together. The files, each knowing those above it, and all
 * of conn.h:
 *
 *     access      the access log                notice    what the error log is told
 *     accept      new connections               balance   between processes
 *     loop        whose turn it is              token     which thread runs the loop
 *     exchange  whose turn it is to send        request, respond   to Python, and back
 *     server    from its making to its end
 *
 * Threads: pw_server.lock guards the server and all that it owns, and is held by whoever runs the
 * loop, except while it waits for events. What is not under it:
 *
 *     a connection in PW_CONN_APP     belongs to the thread that has its exchange, but for `what`,
 *                                     `state`, `timer`, `queued` and the list pointers; `output`
 *                                     belongs to whoever has the turn, from the response's head on
 *                                     (exchange.c)
 *     server->stopping, server->wake, may be touched by anyone
 *     server->drain_until, requests
 *     limits, timers.length,          are not changed once the server listens
 *     head_memory, response_buffer,
 *     threads_most
 */
#ifndef PW_SERVER_H
#define PW_SERVER_H

#include <stdatomic.h>

#include "conn.h"
#include "yield_rule.h"

/* ------------------------------------------------------------------ access.c */

/* Bytes that grow. */
typedef struct {
    char *at; /* owned */
    size_t size, room;
} pw_text;

typedef struct {
    int fd; /* borrowed; -1: no access log */
    bool json;
    bool prompt;     /* each line is written at once */
    bool wants_head; /* the program has fields of the response */
    char *program;   /* owned */
    size_t program_size;
    pw_text lines;             /* not written yet */
    int64_t due;               /* ms: when they are to be; 0: there are none */
    int64_t lost;              /* lines that were dropped, which nobody has been told */
    int64_t told;              /* ms: when that was told last */
    int error;                 /* why the file has last taken less than all */
    bool blocked;              /* it did so at the last try */
    bool stalled;              /* waiting for it was in vain, and it has taken nothing since */
    int64_t wait_from, waited; /* ms: since wait_from so much was waited for it */
    bool cut;                  /* what it has taken last does not end with a line */
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
/* Writes what waits, as far as the file takes it now. */
void pw_access_flush(pw_server *server);
/* The lines go to another file from now on. */
void pw_access_move(pw_server *server, int fd);
/* Nothing is logged any more: waits at most so many ms for the file, and `quiet` ms for it to take
 * something; returns how many lines were dropped since that was last told. */
int64_t pw_access_end(pw_server *server, int most, int quiet);

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
/* The same of what meets many, once in a while: *told is when it was last told. */
void pw_notice_often(pw_server *server, const pw_conn *conn, int what, int64_t *told);
/* The same while a thread is at the request. */
void pw_notice_thread(const pw_thread *thread, const pw_conn *conn, int what, int error);
/* One more of which nothing can be told. */
void pw_notice_lost(pw_server *server);
/* Connections were waiting to be accepted when the server ended. */
void pw_notice_backlog(pw_server *server);
/* So many lines of the access log were dropped. */
void pw_notice_log(pw_server *server, int64_t lines, int error);
/* Keeps the request line of the request that the thread takes, for notices. */
void pw_thread_keep_line(pw_thread *thread, const pw_conn *conn);
/* The thread leaves a response behind that is not yet sent: the same for the connection. */
void pw_conn_keep_line(const pw_thread *thread, pw_conn *conn);

/* ------------------------------------------------------------------ exchange.c; with the lock */

/* The turn to send for an exchange; waits while another thread has it. NULL: the exchange is over. */
pw_conn *pw_turn_take(pw_thread *thread, int64_t exchange);
void pw_turn_give(pw_thread *thread);
/* The exchange is over for the thread, which has the turn or nobody: its response is complete. */
void pw_exchange_end(pw_thread *thread);
/* Ends one that the thread has not finished, if there is one. */
void pw_exchange_abandon(pw_thread *thread);

/* ------------------------------------------------------------------ respond.c */

/* The response cannot go on: `what` has happened, for PW_NOTICE_ERROR errno says it. With the lock.
 * Returns PW_GONE. */
int32_t pw_response_fail_locked(pw_thread *thread, int what);

/* ------------------------------------------------------------------ gather.c; with the lock */

#define PW_GATHER_LOOK_MS 20 /* how often to look while the watcher runs the loop */

/* From here on the watcher sends what the connection's output holds. */
void pw_gather_begin(pw_server *server, pw_conn *conn);
/* The output is the thread's own again. */
void pw_gather_end(pw_server *server, pw_conn *conn);
/* Whether so many bytes are better sent together with what follows them. */
bool pw_gather_wants(const pw_server *server, const pw_conn *conn, size_t size);
/* Sends what is due, or all. By the watcher. */
void pw_gather_flush(pw_server *server, bool all);

/* ------------------------------------------------------------------ accept.c */

typedef struct {
    int fd;          /* owned, a duplicate; -1 once closed, which happens while the server drains */
    bool is_channel; /* connections come from other processes: see handover.c */
    bool is_over;    /* nothing comes any more */
    bool is_polled;  /* the poller has it */
} pw_listener;

/* Accepts what the poller has reported. */
void pw_accept_event(pw_server *server, pw_listener *listener);
/* Counts connections: `change` more, or less. While the server drains the loop checks after each
 * that ends whether it was the last, whichever thread has closed it. */
void pw_accept_count(pw_server *server, int change);
void pw_accept_pause(pw_server *server);
/* While it pauses for want of room: whether an idle connection can go for a new one, now or soon. */
void pw_accept_look(pw_server *server);
/* Accepts again when it may. */
void pw_accept_resume(pw_server *server);
/* While this process leaves new connections to the others: for how long at most, in ms; else -1. */
int pw_accept_patience(pw_server *server);
/* The wait is over: it may be this process's turn after all. */
void pw_accept_waited(pw_server *server);
/* No new connections are for this process any more. */
void pw_accept_leave(pw_server *server);

/*
 * While the server drains. A listening socket that is open then has connections waiting for which
 * there is no room, and accepting is paused; or pw_accept_drain is due.
 */
bool pw_accept_is_open(const pw_server *server);
bool pw_accept_drain_is_due(const pw_server *server);
/* Accepts what waits as far as there is room, and closes the sockets where nothing waits any more, or
 * others accept it. */
void pw_accept_drain(pw_server *server);
/* Closes the sockets. Returns whether connections were waiting there, which are lost unless another
 * process has the sockets too. */
bool pw_accept_close(pw_server *server);

/* ------------------------------------------------------------------ balance.c */

/* One server; written by itself, but for the end of process. */
typedef struct {
    atomic_int_least32_t process; /* its number; 0: the place is free */
    atomic_int_least32_t connections;
} pw_place;

/* NULL: there is none free. */
pw_place *pw_balance_join(pw_balance *balance);
void pw_balance_leave(pw_place *place);
/* Whether another server has so few connections that new ones should be its. */
bool pw_balance_is_ahead(const pw_balance *balance, const pw_place *own);

/* ------------------------------------------------------------------ handover.c */

/* Whether connections can be handed over, and are to be. */
bool pw_handover_is_open(const pw_server *server);
/* Hands a connection over, of which nothing is read that has not been answered; it stays open here.
 * False: nobody can take it now. */
bool pw_hand_over(const pw_server *server, const pw_conn *conn);
/* Like accept; -1 with errno 0: nothing comes any more. Checks that *number is below count. */
int pw_take_over(int channel, struct sockaddr_storage *peer, uint8_t *number, int count);

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
    size_t head_memory; /* most bytes of pool.held that connections may keep while they wait */
    int64_t told_heads; /* ms: when PW_NOTICE_HEADS was last told; 0: never */
    int64_t told_queue; /* the same of PW_NOTICE_QUEUE */
    int32_t max_connections;
    int32_t timeout_graceful;
    char *directory; /* owned */

    pw_poll poll;
    pw_event events[PW_EVENTS_MOST];
    int event_count, event_next;
    int wake[2];               /* a pipe: [1] written by pw_server_stop */
    atomic_int stopping;       /* the most urgent that pw_server_stop was asked for; 0: nothing */
    _Atomic(int64_t) requests; /* handed out; read by pw_server_requests from any thread */
    bool draining;
    atomic_int_least64_t drain_until; /* ms; 0: nobody has seen yet that it is to stop */

    pw_listener listeners[PW_LISTENERS_MOST];
    int listener_count;
    int handover;        /* owned, a duplicate; -1: connections are closed at the end */
    bool paused;         /* accepting, for want of descriptors or room */
    int64_t resume_at;   /* ms; 0: when a connection is closed, or idle */
    pw_balance *balance; /* borrowed; NULL: no other server has the listening sockets */
    pw_place *place;     /* borrowed: its own in balance, or NULL */
    bool aside;          /* it has left accepting to the others */
    int64_t aside_until; /* ms */
    int turn;            /* how many connections it accepts before it looks at the others again */

    pw_conn *all; /* owned: the list of connections */
    int32_t conn_count;
    int64_t next_id;
    pw_conn *dead;    /* owned: closed, to be freed (linked by run_next) */
    pw_queue run;     /* connections to go on with */
    pw_queue again;   /* the same, after the events: their time slice was over before */
    pw_queue spent;   /* the same, when the poller has been asked again: their slice is over */
    int64_t polls;    /* how often it was */
    int32_t slice_ms; /* PW_SLICE_MS, but in tests */
    pw_queue ready;   /* connections with a complete request, for the next thread */

    pw_timers timers;
    pw_pool pool;
    pw_cache cache;
    pw_clock clock;
    pw_field *fields; /* owned: max_fields, of the head parsed last */
    char *scratch;    /* owned: PW_SCRATCH_SIZE */

    pw_head head;       /* the head parsed last; its spans are good while `parsed` has it */
    pw_conn *parsed;    /* borrowed: the connection of head, or NULL */
    pw_changes changes; /* the same of one with PW_CHANGED */

    int64_t *news; /* owned: what pw_news will tell */
    size_t news_count, news_room;
    int64_t news_said; /* what pw_news has said last, and nobody has acted upon yet; -1: none */
    pw_notices notices;

    pw_access access;
    int64_t polled_us; /* when the poller was last asked; with an access log only */
    char *health;      /* owned: the path that the core answers; empty: none */

    pthread_mutex_t lock;

    /* The token: see token.c. */
    pw_thread *holder;     /* borrowed: a serving thread, or the watcher; NULL: it is free */
    bool holder_is_out;    /* the holder is in Python, and keeps the token */
    int64_t token_tick;    /* when it went there, or when the token became free */
    bool polling;          /* the holder waits for events, without the lock */
    int64_t polling_until; /* ms; -1: for ever */
    pw_thread *idle;       /* borrowed: threads that wait for the token, a stack */
    pw_thread *threads;    /* borrowed: all of them */
    int32_t thread_count;  /* those that were asked for, and have not failed to start */
    int32_t threads_most;
    int32_t held;        /* those whose response waits for its client to read */
    int32_t arrived;     /* those that have come to the core so far */
    int32_t taken_count; /* those that are at a request */
    int64_t takes;       /* requests that they have taken */
    bool has_gil;
    pw_yield_rule rule;
    int32_t references; /* pw_server_free and the threads: the last one frees the memory */

    /* The watcher: see pw_watch. */
    pw_thread *watcher;      /* owned: stands for pw_watch as the holder; serves nothing */
    pthread_cond_t watch;    /* for pw_watch */
    int64_t timeout_request; /* ms; 0: none */
    bool queue_ends;         /* a request that waits for a thread is refused in the end */
    int64_t ticks;           /* counted by pw_watch */
    int64_t start_tick;      /* no thread is asked for before this */
    int64_t looked_at;       /* ms: when pw_watch last looked for slow requests */
    int gathering;           /* connections whose output pw_watch sends */
    bool is_watched;         /* pw_watch has been called */
    bool watcher_is_here;    /* in pw_watch, and not about to do what it returned */
    bool watcher_sleeps;     /* until the next request */
    bool wants_thread;       /* sooner than the next tick */

    bool stopped;       /* pw_next returns PW_STOP from now on */
    bool held_for_fork; /* of the thread that forks, which has the lock */
    bool forked;        /* this is a child of the server's process: nothing is open */
};

struct pw_thread {
    pw_server *server;  /* borrowed */
    pw_conn *conn;      /* borrowed: of the exchange at hand, or NULL: there is none */
    pw_request request; /* its number is the exchange's */
    pw_block block;     /* its memory is owned */

    pthread_cond_t wake;  /* with the server's lock: it has been given the token, or the end */
    pw_thread *next_idle; /* borrowed */
    bool is_idle;         /* in server->idle */
    bool has_arrived;     /* counted in server->arrived */
    bool taken;           /* a request, and has not come back for the next */
    atomic_bool back;     /* it has called the core again, but may wait for the lock yet */
    bool held;            /* counted in server->held */
    int64_t taken_at;     /* ms */
    int64_t system;       /* pw_thread_id, once it has arrived */
    int64_t stall_cpu;    /* ns of CPU time when the watcher last looked; -1: unknown */

    /* What the rule is told of the request (yield_rule.h). The thread's own but for the first three. */
    pw_yield_measure measure;
    int64_t take;              /* server->takes when it was taken */
    int32_t company;           /* others in the application then */
    pw_usage out, in;          /* when it left the core and when it came back */
    int64_t taken_us;          /* with an access log only, like the next two */
    int64_t queued_us;         /* from complete to here */
    pw_text log;               /* what the access log says of the request */
    char line[PW_NOTICE_LINE]; /* its request line, or the beginning of it */
    size_t line_size;
    int32_t number;             /* the caller's */
    int32_t patience;           /* ms that it waits, once; -1: for ever, as often as need be */
    int warned;                 /* how often pw_watch has named the request at hand */
    pw_thread *next, *previous; /* borrowed: server->threads */
    bool nudged;                /* it is to return PW_IDLE */
    bool sending;               /* a thread has the turn: see exchange.c */
    pthread_cond_t turn;        /* with the server's lock: the turn has been given back */
};

/* One reference less. */
void pw_server_release(pw_server *server);

/* ------------------------------------------------------------------ loop.c */

/* Goes on with a connection soon: first or last of those that wait for it. */
void pw_run(pw_server *server, pw_conn *conn, bool first);
/*
 * One client cannot have all of the loop's time: when its connection has had so much since the poller
 * was last asked, its time slice is over: the poller is asked again first, and the others go on. While
 * the application takes little time a slice is many requests, whose responses leave together.
 */
#define PW_SLICE_REQUESTS 32
#define PW_SLICE_BYTES 262144 /* received, and sent as content */
#define PW_SLICE_MS 4

static inline bool pw_slice_is_over(const pw_server *server, const pw_conn *conn)
{
    return conn->slice_requests >= PW_SLICE_REQUESTS || conn->slice_bytes >= PW_SLICE_BYTES ||
           server->timers.now - conn->slice_since >= server->slice_ms;
}

/* Goes on with a connection that could go on now, but whose slice is over: after the others. */
void pw_slice_end(pw_server *server, pw_conn *conn);
/* Whether what is not over has to end now, because the server was stopped. */
bool pw_server_is_late(pw_server *server);
/* For pw_news. */
void pw_tell(pw_server *server, int64_t value, int kind);
/* The loop itself, by the holder; with the lock, which it lets go while it waits. The watcher gets
 * PW_IDLE when a thread that can serve waits for the token. */
int64_t pw_loop(pw_thread *thread);
/* What pw_next returns: waits for the token, and runs the loop. */
int64_t pw_loop_serve(pw_thread *thread);
/* The first of the requests that are complete, or NULL. */
pw_conn *pw_ready_pop(pw_server *server);
/* This connection's request has waited for too long, and so have those before it: 503. */
void pw_ready_expire(pw_server *server, const pw_conn *last);
/* Another thread has, perhaps, given the loop something to do. */
void pw_loop_wake(pw_server *server, bool always);
/* Ends and frees all connections; no thread is in the loop any more. */
void pw_loop_clear(pw_server *server);

/* ------------------------------------------------------------------ token.c */

/*
 * Waits for the token. False: it is not to be had now, and what pw_next returns is *number: also a
 * request, if `picks`.
 */
bool pw_token_take(pw_thread *thread, bool picks, int64_t *number);
/* The thread goes to the application with a request, and keeps the token or yields it. */
void pw_token_keep(pw_thread *thread);
/* The thread goes to Python without a request, and keeps the token. */
void pw_token_carry(pw_thread *thread);
/* Without the lock: the thread leaves the core for Python with this number, or has come back. */
void pw_token_leave(pw_thread *thread, int64_t number);
void pw_token_back(pw_thread *thread);
/* Without the lock: a slow client holds the thread from now on, or no more. */
void pw_token_hold(pw_thread *thread, bool held);
/* The thread is to be freed: nobody is to wait for it. */
void pw_token_drop(pw_thread *thread);
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
