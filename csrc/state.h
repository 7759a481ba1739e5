/*
 * What the files from queue.c on share: a connection, a server and a thread, with the parts of them.
 *
 * Threads: pw_server.lock guards the server and all that it owns, and is held by the thread that
 * runs the loop, except while it waits for events. The lock does not guard:
 *
 *     a connection in PW_CONN_APP     belongs to the thread that has its exchange, but for `what`,
 *                                     `state`, `timer`, `queued` and the list pointers; `output`
 *                                     belongs to the thread that has the turn, from the response's head on
 *                                     (exchange.c)
 *     server->stopping, server->wake, may be touched by anyone
 *     server->drain_until, requests
 *     limits, timers.length,          are not changed once the server listens
 *     head_memory, response_buffer,
 *     threads.most
 */
#ifndef PW_STATE_H
#define PW_STATE_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "buffer.h"
#include "cache.h"
#include "clock.h"
#include "conn_balance.h"
#include "content.h"
#include "output.h"
#include "poller.h"
#include "timer.h"
#include "yield_rule.h"

/* ------------------------------------------------------------------ a connection */

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

/* What is to become of it after the response. The last in this list that was asked for holds. */
typedef enum {
    PW_CONN_STAYS,  /* the next request of its client */
    PW_CONN_CLOSES, /* its end */
    PW_CONN_RESETS, /* its end by a reset: an orderly one would pass for the end of the content */
    PW_CONN_FAILED, /* the same, at once: writing has failed, or the response cannot go on */
} pw_conn_end;

typedef enum {
    PW_RESPONSE_NONE,    /* nothing of it is here */
    PW_RESPONSE_BEGUN,   /* its head is handed over */
    PW_RESPONSE_BATCHED, /* the same, and the watcher sends its output while more is made */
    PW_RESPONSE_WAITS,   /* it is whole, and waits for the next one (batch.c) */
} pw_response_state;

/* How its client knows where its content ends (RFC 9112 section 6.3). */
typedef enum {
    PW_FRAMING_LENGTH,  /* by Content-Length */
    PW_FRAMING_NONE,    /* there is none: HEAD, 204, 304 */
    PW_FRAMING_CHUNKED, /* by the last chunk */
    PW_FRAMING_END,     /* by the end of the connection */
} pw_framing;

/* The response to the current request. */
typedef struct {
    pw_response_state state;
    pw_framing framing;
    int status;
    int64_t promised;  /* Content-Length of one in parts; -1: none */
    int64_t bytes;     /* of its content */
    int64_t sent_tick; /* when data was sent last; -1: none */
    int64_t batch_due; /* tick: when the watcher sends its output, in PW_RESPONSE_BATCHED */
} pw_response;

/* Made by accept, freed by the loop after the batch of events in which it was closed. */
typedef struct pw_conn {
    int fd;
    pw_conn_state state;
    pw_conn_end end;
    int what;        /* edges seen and not used up: PW_READABLE ... */
    bool registered; /* with the poller */
    bool queued;     /* in one of the server's queues */
    uint8_t kind;    /* of the request: PW_SAME ... */
    uint8_t listener;
    int16_t entry;  /* of the cache, or -1 */
    int32_t served; /* requests handed to Python */
    int64_t id;
    pw_buffer *in;             /* owned; NULL: nothing received is left */
    size_t used;               /* of in, from its start: the head and content already taken */
    pw_head_progress progress; /* with the head there */
    pw_content *content;       /* owned, from head to the end of the response */
    pw_facts facts;            /* of the current request */
    pw_response response;
    pw_output output;
    int64_t loan; /* the exchange whose lent bytes the output may hold; 0: it holds none */
    char *line;   /* owned: of the request whose response is on its way, for incidents; or NULL */
    int unsent;   /* pw_unsent when it was last asked for */
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

static inline void pw_conn_ends(pw_conn *conn, pw_conn_end end)
{
    if (conn->end < end)
        conn->end = end;
}

static inline bool pw_conn_resets(const pw_conn *conn)
{
    return conn->end >= PW_CONN_RESETS;
}

static inline pw_conn *pw_conn_of(pw_timer *timer)
{
    return (pw_conn *)(void *)((char *)timer - offsetof(pw_conn, timer));
}

/* ------------------------------------------------------------------ parts of a server */

typedef struct {
    int fd; /* borrowed; -1: no access log */
    bool json;
    bool prompt;     /* each line is written at once */
    bool wants_head; /* the program has fields of the response */
    char *program;   /* owned */
    size_t program_size;
    pw_text lines; /* not written yet */
    int64_t due;   /* ms: when they are to be; 0: there are none */
    char time[48];
    size_t time_size;
    int64_t second;
} pw_access;

typedef struct {
    pw_incident *at; /* owned: at[first, count) are waiting */
    size_t first, count, room;
    int64_t lost; /* because there was no memory */
} pw_incidents;

typedef struct {
    int fd;          /* owned, a duplicate; -1 once closed, which happens while the server drains */
    bool is_channel; /* connections come from other processes: see conn_transfer.c */
    bool is_over;    /* nothing comes any more */
    bool is_polled;  /* the poller has it */
} pw_listener;

/* ------------------------------------------------------------------ a server, and its threads */

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
    int64_t told_heads; /* ms: when PW_INCIDENT_HEADS was last told; 0: never */
    int64_t told_queue; /* the same of PW_INCIDENT_QUEUE */
    int32_t timeout_graceful;
    bool queue_ends; /* a request that waits for a thread is refused in the end */
    char *directory; /* owned */

    pw_poll poll;
    pw_event events[PW_EVENTS_MOST];
    int event_count, event_next;
    bool polling;              /* the holder of the token waits for events, without the lock */
    int64_t polling_until;     /* ms; -1: for ever */
    int wake[2];               /* a pipe: [1] written by pw_server_stop */
    atomic_int stopping;       /* the most urgent that pw_server_stop was asked for; 0: nothing */
    _Atomic(int64_t) requests; /* handed out; read by pw_server_requests from any thread */
    atomic_bool closing;       /* each response is the last one of its connection */
    atomic_bool unready;       /* health_path is answered with 503 */
    bool draining;
    atomic_int_least64_t drain_until; /* ms; 0: nobody has seen yet that it is to stop */

    /* New connections: see listener.c and accept.c. */
    struct {
        pw_listener listeners[PW_LISTENERS_MOST];
        int listener_count;
        int32_t max_connections;
        bool paused;         /* there is no descriptor, or no room */
        int64_t resume_at;   /* ms; 0: when a connection is closed, or idle */
        pw_balance *balance; /* borrowed; NULL: no other server has the listening sockets */
        pw_place *place;     /* borrowed: its own in balance, or NULL */
        bool aside;          /* it has left accepting to the others */
        int64_t aside_until; /* ms */
        int turn; /* how many connections it accepts before it looks at the others again */
    } accept;
    int transfer; /* owned, a duplicate; -1: connections are closed at the end */

    pw_conn *all; /* owned: the list of connections */
    int32_t conn_count;
    int64_t next_id;
    pw_conn *dead;  /* owned: closed, to be freed (linked by run_next) */
    pw_conn *spare; /* owned: memory for the next connections (linked by run_next) */
    int spare_count;
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
    pw_incidents incidents;

    pw_access access;
    int64_t polled_us; /* when the poller was last asked; with an access log only */
    char *health;      /* owned: the path that the core answers; empty: none */
    char *live;        /* owned: the same, of pw_settings.live_path */
    bool has_probes;   /* one of the two is not empty */

    pthread_mutex_t lock;
    int32_t references; /* pw_server_free and the threads: the last one frees the memory */

    struct {
        pw_thread *first; /* borrowed: all of them */
        int32_t count;    /* those that were asked for, and have not failed to start */
        int32_t most;
        int32_t held;    /* those whose response waits for its client to read */
        int32_t arrived; /* those that have come to the core so far */
        int32_t taken;   /* those that are at a request */
        int64_t takes;   /* requests that they have taken */
    } threads;

    /* Which thread runs the loop: see token.c. */
    struct {
        pw_thread *holder; /* borrowed: a serving thread, or the watcher; NULL: it is free */
        bool is_out;       /* the holder is in Python, and keeps the token */
        int64_t tick;      /* when it went there, or when the token became free */
        pw_thread *idle;   /* borrowed: threads that wait for the token, a stack */
        bool has_gil;
        pw_yield_rule rule;
    } token;

    /* The watcher: see watcher.c. */
    struct {
        pw_thread *thread;       /* owned: stands for pw_watch as the holder; serves nothing */
        pthread_cond_t wake;     /* with the lock: for pw_watch */
        int64_t timeout_request; /* ms; 0: none */
        int64_t ticks;           /* counted by pw_watch */
        int64_t start_tick;      /* no thread is asked for before this */
        int64_t looked_at;       /* ms: when pw_watch last looked for slow requests */
        bool has_begun;          /* pw_watch has been called */
        bool is_here;            /* in pw_watch, and not about to do what it returned */
        bool sleeps;             /* until the next request */
        int64_t trimmed_at;      /* ms: when it last gave free memory back, or had none to give */
        bool heap_is_large;      /* there may be more of it later */
        bool wants_thread;       /* sooner than the next tick */
    } watch;

    /* When a response leaves: see batch.c. */
    struct {
        int count; /* responses in PW_RESPONSE_BATCHED, whose output pw_watch sends */
    } batch;

    bool stopped;       /* pw_next returns PW_STOP from now on */
    bool held_for_fork; /* of the thread that forks, which has the lock */
    bool forked;        /* this is a child of the server's process: nothing is open */
};

struct pw_thread {
    pw_server *server;  /* borrowed */
    pw_conn *conn;      /* borrowed: of the current exchange, or NULL: there is none */
    pw_request request; /* its number is the exchange's */
    pw_block block;     /* its memory is owned */

    pthread_cond_t wake;  /* with the server's lock: it has been given the token, or the end */
    pw_thread *next_idle; /* borrowed */
    bool is_idle;         /* in server->token.idle */
    bool has_arrived;     /* counted in server->threads.arrived */
    bool taken;           /* a request, and has not come back for the next */
    atomic_bool back;     /* it has called the core again, but may wait for the lock yet */
    bool held;            /* counted in server->threads.held */
    int64_t taken_at;     /* ms */
    int64_t system;       /* pw_thread_id, once it has arrived */
    int64_t stall_cpu;    /* ns of CPU time when the watcher last looked; -1: unknown */

    /* What the rule is told of the request (yield_rule.h). The thread's own but for the first three. */
    pw_yield_measure measure;
    int64_t take;                /* server->threads.takes when it was taken */
    int32_t company;             /* others in the application then */
    pw_usage out, in;            /* when it left the core and when it came back */
    int64_t taken_us;            /* with an access log only, like the next two */
    int64_t queued_us;           /* from complete to here */
    pw_text log;                 /* what the access log says of the request */
    char line[PW_INCIDENT_LINE]; /* its request line, or the beginning of it */
    size_t line_size;
    int32_t number;             /* the caller's */
    int32_t timeout_ms;         /* ms that it waits, once; -1: for ever, as often as need be */
    int warned;                 /* how often pw_watch has named the current request */
    pw_thread *next, *previous; /* borrowed: server->threads.first */
    bool nudged;                /* it is to return PW_IDLE */
    bool sending;               /* a thread has the turn: see exchange.c */
    pthread_cond_t turn;        /* with the server's lock: the turn has been given back */
};

#endif
