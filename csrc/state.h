/*
 * The structs that all files from queue.c on share: a connection, a server, a serving thread, and
 * their parts.
 *
 * pw_server.lock guards the server and everything that the server owns. The thread that runs the
 * loop holds the lock, except while it waits for events. The lock does not guard these members:
 *
 *     a connection in PW_CONN_APP      Its members belong to the thread that has its exchange,
 *                                      except `what`, `state`, `timer`, `queued` and the list
 *                                      pointers. From the response's head on, `output` belongs to
 *                                      the thread that has the turn (exchange.c).
 *     server->stopping, server->wake,  Any thread may use them.
 *     server->drain_until, requests,
 *     cut.grace
 *     limits, trust, timers.length,    They do not change after the server listens.
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
#include "forwarded.h"
#include "meter.h"
#include "output.h"
#include "poller.h"
#include "proxy_protocol.h"
#include "timer.h"
#include "trust.h"
#include "yield_rule.h"

/* ------------------------------------------------------------------ a connection */

typedef enum {
    PW_CONN_IDLE,    /* no byte of the next request is here; holds no buffer */
    PW_CONN_HEAD,    /* a part of the head is here */
    PW_CONN_CONTENT, /* the head is here, the content is arriving */
    PW_CONN_READY,   /* the request is complete, all threads are busy: in server->ready */
    PW_CONN_APP,     /* the application has the request; only its thread touches the connection */
    PW_CONN_SENDING, /* the application has finished, the client has not received everything */
    PW_CONN_LINGER,  /* all bytes are sent; the core drops the bytes that the client still sends */
    PW_CONN_PROXY,   /* the first state with --proxy-protocol: the PROXY header is not complete */
    PW_CONN_CLOSED,  /* freed when no event of it can be left */
} pw_conn_state;

/* What happens to the connection after the response. The last one in
 * this list that was requested holds. */
typedef enum {
    PW_CONN_STAYS,  /* it continues with the client's next request */
    PW_CONN_CLOSES, /* its end */
    PW_CONN_RESETS, /* it ends by a reset at once: a write has failed, or the response cannot continue */
    PW_CONN_FAILED,
} pw_conn_end;

typedef enum {
    PW_RESPONSE_NONE,  /* no byte of it is here */
    PW_RESPONSE_BEGUN, /* its head is handed over */
    PW_RESPONSE_BATCHED,
    PW_RESPONSE_WAITS, /* it is complete, and waits for the next response (batch.c) */
} pw_response_state;

/* How the client finds the end of the content (RFC 9112 section 6.3). */
typedef enum {
    PW_FRAMING_LENGTH,  /* by Content-Length */
    PW_FRAMING_NONE,    /* there is no content: HEAD, 204, 304 */
    PW_FRAMING_CHUNKED, /* by the last chunk */
    PW_FRAMING_END,     /* by the end of the connection */
} pw_framing;

/* The response to the current request. */
typedef struct {
    pw_response_state state;
    pw_framing framing;
    int status;
    int64_t promised;  /* Content-Length of a response in parts; -1: none */
    int64_t bytes;     /* bytes of content handed over */
    int64_t sent_tick; /* tick in which data was sent last; -1: none */
    int64_t batch_due; /* tick in which the watcher sends the output, in PW_RESPONSE_BATCHED */
} pw_response;

/* What incidents say about a request, when its head is gone. */
typedef struct {
    bool has_client;
    pw_peer client; /* as forwarded, if has_client */
    char id[PW_REQUEST_ID_SIZE];
    char line[]; /* method and target; ends with NUL */
} pw_kept;

/* A connection. accept.c makes it. The loop frees it after the events that it had fetched when the
 * connection was closed. */
typedef struct pw_conn {
    int fd;
    pw_conn_state state;
    pw_conn_end end;
    int what;        /* edges that were reported and not used up: PW_READABLE ... */
    bool registered; /* the poller has it */
    bool queued;     /* it is in a queue of the server */
    bool trusted;    /* what its sender says about a client is used; the sender is the peer, or as a
                        PROXY header names it */
    uint8_t kind;    /* of the request: PW_SAME ... */
    uint8_t listener;
    int16_t entry;  /* of the cache; -1: none */
    int32_t served; /* requests handed to Python */
    int64_t id;
    pw_buffer *in;             /* owned; NULL: no received bytes are left */
    size_t used;               /* bytes at the start of `in` that are used: the head and content */
    pw_head_progress progress; /* of the parser, in this head */
    pw_content *content;       /* owned, from the head to the end of the response */
    pw_facts facts;            /* about the current request */
    pw_response response;
    pw_output output;
    int64_t loan;  /* the exchange whose lent bytes the output may hold; 0: it holds none */
    pw_kept *kept; /* owned: of the request whose response is on its way; NULL: there is none */
    int unsent;    /* pw_unsent when it was last asked for */
    int64_t left_at;
    int64_t head_us;        /* when the head of a request with content had come; see is_timed */
    int64_t ready_us;       /* when it became PW_CONN_READY; see is_timed */
    int64_t received;       /* bytes since the last pw_bytes */
    int64_t slice;          /* server->polls at the beginning of the time slice */
    int64_t slice_since;    /* ms: beginning of the time slice */
    int32_t slice_requests; /* used in the time slice */
    int64_t slice_bytes;
    int64_t linger_left;  /* bytes that may still be dropped */
    int64_t linger_until; /* ms: the end at the latest; before a reset: without progress */
    pw_timer timer;
    struct pw_conn *run_next;        /* borrowed */
    struct pw_conn *next, *previous; /* borrowed: neighbours in the list of all connections */
    pw_proxied *proxied;             /* owned: the addresses in its PROXY header, or NULL */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer; /* of the socket */
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
    bool wants_head; /* the format has fields of the response */
    char *program;   /* owned */
    size_t program_size;
    pw_text lines;             /* not yet written */
    int64_t due;               /* ms: when to write the lines; 0: there are none */
    int64_t lost;              /* dropped lines that no incident has reported */
    int64_t reported_at;       /* ms: the last such incident */
    int error;                 /* why the file has last taken less than all */
    bool blocked;              /* it did so at the last try */
    bool stalled;              /* it took nothing while it was waited for, nor since */
    bool cut;                  /* what it has taken last does not end with a line */
    int64_t wait_from, waited; /* ms: since wait_from so much was waited for it */
    char time[48];
    size_t time_size;
    int64_t second;
} pw_access;

typedef struct {
    pw_incident *at; /* owned: at[first, count) are waiting */
    size_t first, count, room;
    int64_t lost; /* number of incidents for which there was no memory */
} pw_incidents;

/* The connections that were closed because of their PROXY header. */
typedef struct {
    int64_t count;
    struct {
        int64_t unreported;  /* since the last incident */
        int64_t reported_at; /* ms: that incident; 0: there was none */
    } kinds[PW_PROXY_KINDS];
} pw_proxy_refusals;

typedef struct {
    int fd;          /* owned, a duplicate; -1: closed, because the server drains */
    bool is_channel; /* connections come from another process: see conn_transfer.c */
    bool is_over;    /* the other process sends no more connections */
    bool is_polled;  /* the poller has it */
} pw_listener;

/* ------------------------------------------------------------------ a server, and its threads */

#define PW_LISTENERS_MOST 64
#define PW_SCRATCH_SIZE 131072

/* A list linked by run_next, so a connection is in one of them at most. */
typedef struct {
    pw_conn *first, *last; /* borrowed */
} pw_queue;

struct pw_server {
    pw_limits limits; /* for requests of trusted peers */
    pw_limits other_limits;
    pw_trust trust;
    bool proxy_protocol;  /* a connection begins with a PROXY header */
    pw_network *networks; /* owned: those of `trust` */
    char *root;           /* owned: pw_settings.root_path */
    pw_store store;
    int64_t response_buffer;
    size_t head_memory;        /* limit of pool.held, for connections that wait */
    int64_t heads_reported_at; /* ms: when PW_INCIDENT_HEADS was last added; 0: never */
    int64_t queue_reported_at; /* ms: when PW_INCIDENT_QUEUE was last added; 0: never */
    int32_t timeout_graceful;
    bool request_ids;         /* each request gets one */
    uint64_t request_seed[2]; /* the state of two sequences of numbers */
    bool queue_ends;          /* there is a timeout for requests that wait for a thread */
    char *directory;          /* owned */

    pw_poll poll;
    pw_event events[PW_EVENTS_MOST];
    int event_count, event_next;
    bool polling;              /* the token's holder waits for events, without the lock */
    int64_t polling_until;     /* ms: end of this wait; -1: no limit */
    int wake[2];               /* owned: a pipe; pw_server_stop writes to [1] */
    atomic_int stopping;       /* the most urgent request of pw_server_stop; 0: none */
    int64_t dropped;           /* fields of requests that were left out for an underscore */
    _Atomic(int64_t) requests; /* requests handed to Python; any thread may read it */
    atomic_bool closing;       /* each response is the last one of its connection */
    atomic_bool unready;       /* health_path is answered with 503 */
    bool draining;
    atomic_int_least64_t drain_until; /* ms: end of the drain; 0: no thread has seen the stop yet */

    /* Accepting new connections: see listener.c and accept.c. */
    struct {
        pw_listener listeners[PW_LISTENERS_MOST];
        int listener_count;
        int32_t max_connections;
        bool paused;         /* no free descriptor, or the maximum of connections */
        int64_t resume_at;   /* ms; 0: when a connection is closed or becomes idle */
        pw_balance *balance; /* borrowed; NULL: no other server has the listening sockets */
        pw_place *place;     /* borrowed: this server's place in balance, or NULL */
        bool aside;          /* this server leaves new connections to the others */
        int64_t aside_until; /* ms: when it looks whether connections wait nevertheless */
        int aside_ms;        /* from one such look to the next */
        int turn;            /* connections to accept before comparing with the other servers */
    } accept;
    int transfer; /* owned, a duplicate; -1: connections are not handed over at the end */

    pw_conn *all; /* owned: all open connections */
    int32_t conn_count;
    int32_t idle_count; /* those in PW_CONN_IDLE */
    int64_t next_id;
    pw_conn *dead;  /* owned: closed connections, to be freed (linked by run_next) */
    pw_conn *spare; /* owned: memory for the next connections (linked by run_next) */
    int spare_count;
    pw_queue run; /* connections to continue with */
    pw_queue again;
    pw_queue spent;   /* connections to drive after the next poll: their time slice has ended */
    int64_t polls;    /* number of polls */
    int32_t slice_ms; /* PW_SLICE_MS, except in tests */
    pw_queue ready;   /* connections with a complete request, for the next thread */
    int32_t ready_count;

    pw_timers timers;
    pw_pool pool;
    pw_cache cache;
    pw_clock clock;
    pw_field *fields; /* owned: max_fields, of the head parsed last */
    char *scratch;    /* owned: PW_SCRATCH_SIZE */

    pw_head head;
    pw_forwarded forwarded; /* by the fields of `head`, if head.facts.forwarded is true */
    pw_conn *parsed;        /* borrowed: the connection of `head`, or NULL */
    pw_changes changes;     /* the changed fields of that head, if it is PW_CHANGED */

    pw_proxy_refusals proxy_refusals;

    int64_t *news; /* owned: the messages for pw_news */
    size_t news_count, news_room;
    int64_t news_said;
    pw_incidents incidents;

    pw_access access;
    pw_metrics *metrics; /* kept, with `meter`; or NULL */
    pw_meter *meter;     /* borrowed: for --metrics; NULL: nothing is counted */
    bool is_timed;       /* requests are timed, because there is an access log or a meter */
    int64_t polled_us;   /* time of the last poll; see is_timed */
    char *health;        /* owned: the path that the core answers; empty: none */
    char *live;          /* owned: the same, of pw_settings.live_path */
    bool has_probes;     /* one of the two is not empty */

    pthread_mutex_t lock;
    int32_t references; /* pw_server_free and the threads; the last one frees the memory */

    struct {
        pw_thread *first; /* borrowed: all threads */
        int32_t count;    /* threads that were requested, without those that failed to start */
        int32_t most;
        int32_t held;     /* threads that wait for a client to read */
        int32_t arrived;  /* threads that have called the core so far */
        int32_t taken;    /* threads that have a request */
        int32_t detached; /* threads with a connection that the application uses: see detach.c */
        int64_t takes;    /* requests taken by threads */
    } threads;

    /* The token, which decides which thread runs the loop: see token.c. */
    struct {
        pw_thread *holder; /* borrowed: a serving thread, or the watcher; NULL: it is free */
        bool is_out;       /* the holder is in Python and keeps the token */
        int64_t tick;      /* in which the holder went to Python, or the token became free */
        pw_thread *idle;   /* borrowed: a stack of threads that wait for the token */
        bool has_gil;
        pw_yield_rule rule;
    } token;

    /* The watcher: see watcher.c. */
    struct {
        pw_thread *thread;
        pthread_cond_t wake;     /* with the server's lock: wakes pw_watch */
        int64_t timeout_request; /* ms; 0: no limit */
        int64_t ticks;           /* counted by pw_watch */
        int64_t start_tick;      /* no thread is requested before this tick */
        int64_t looked_at;       /* ms: last search for slow requests */
        bool has_begun;          /* pw_watch has been called */
        bool is_here;            /* the watcher is in pw_watch, and will not return now */
        bool sleeps;             /* until the next request */
        int64_t trimmed_at;      /* ms: its last call of pw_heap_trim */
        bool heap_is_large;      /* the result of that call */
        bool wants_thread;       /* start a thread without waiting for the next tick */
    } watch;

    /* Responses that stream are cut off: see cut.c. */
    struct {
        atomic_int grace;  /* ms for their threads to come back; 0: they are not cut off */
        int64_t looked_at; /* ms: the last look at the responses */
        int64_t at;        /* ms: when a response was last cut off */
    } cut;

    /* Batching of output: see batch.c. */
    struct {
        int count; /* responses in PW_RESPONSE_BATCHED, whose output pw_watch sends */
    } batch;

    bool stopped;       /* pw_next returns PW_STOP from now on */
    bool held_for_fork; /* by the thread that forks, which has the lock */
    bool forked;        /* this is a forked child: nothing of the server is open */
};

static inline const pw_limits *pw_limits_of(const pw_server *server, const pw_conn *conn)
{
    return conn->trusted ? &server->limits : &server->other_limits;
}

/* The largest number of threads now: one more for each thread that waits for a slow client, up to
 * twice the setting. */
static inline int32_t pw_threads_most(const pw_server *server)
{
    if (server->threads.most == 1)
        return 1; /* only one thread may call the application */
    int32_t held =
        server->threads.held < server->threads.most ? server->threads.held : server->threads.most;
    return server->threads.most + held;
}

/* The forwarded values of the head that was parsed last. NULL: it has none. */
static inline const pw_forwarded *pw_forwarded_of(const pw_server *server)
{
    return server->head.facts.forwarded ? &server->forwarded : NULL;
}

struct pw_thread {
    pw_server *server;  /* borrowed */
    pw_conn *conn;      /* borrowed: of the current exchange; NULL: there is none */
    pw_request request; /* request.exchange is the number of the exchange */
    pw_block block;     /* its memory is owned */

    pthread_cond_t wake;
    pw_thread *next_idle; /* borrowed */
    bool is_idle;         /* it is in server->token.idle */
    bool has_arrived;     /* it is counted in server->threads.arrived */
    bool taken;           /* it has a request, and has not come back for the next one */
    atomic_bool back;     /* it has called the core again, but may still wait for the lock */
    bool held;            /* it is counted in server->threads.held */
    int64_t taken_at;     /* ms */
    int64_t system;       /* pw_thread_id, after the first call of the core */
    int64_t stall_cpu;    /* ns: CPU time when the watcher last looked; -1: unknown */

    /* Measurements of the request for the yield rule (yield_rule.h). The
     * lock guards only the first three. */
    pw_yield_measure measure;
    int64_t take;                /* server->threads.takes when the request was taken */
    int32_t company;             /* other threads in the application at that time */
    pw_usage out, in;            /* when it left the core, and when it came back */
    int64_t taken_us;            /* see is_timed, as for the next two */
    int64_t queued_us;           /* microseconds from the complete request to this thread */
    int64_t arrived_us;          /* when the head had come */
    pw_text log;                 /* with an access log: the request's part of the line */
    char line[PW_INCIDENT_LINE]; /* the request line, or its beginning */
    size_t line_size;
    pw_peer client; /* as forwarded, for incidents: see pw_thread_client */
    bool has_client;
    int32_t number;             /* the caller's number of the thread */
    int32_t timeout_ms;         /* ms: waits once for at most this; -1: waits without a limit */
    int64_t begun_exchange;     /* whose response streamed at the last look of cut.c; 0: none */
    int64_t cut_exchange;       /* whose response was cut off; 0: none */
    int warned;                 /* how often pw_watch has reported the current request */
    pw_thread *next, *previous; /* borrowed: neighbours in the list of server->threads.first */
    bool nudged;                /* it has to return PW_IDLE */
    bool sending;               /* a thread has the turn to send: see exchange.c */
    /* The connection that the application has taken: see detach.c. With the lock. */
    struct {
        int64_t exchange; /* the last one whose connection it has taken; 0: none */
        int32_t dropped;  /* parts of its response */
        pw_conn *conn;    /* owned, and in no list of the server; NULL: it ended, or the application
                           * keeps it for good */
    } detached;
    pthread_cond_t turn; /* with the server's lock: the turn is free */
};

/* Whether the application has taken the connection of this exchange: see detach.c. */
static inline bool pw_exchange_is_detached(const pw_thread *thread, int64_t exchange)
{
    return thread->detached.exchange == exchange && exchange != 0;
}

static inline bool pw_thread_is_detached(const pw_thread *thread)
{
    return pw_exchange_is_detached(thread, thread->request.exchange);
}

#endif
