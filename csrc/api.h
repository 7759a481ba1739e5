/*
 * What Python sees of the core: the only declarations, read by cffi as its cdef and included by
 * the C files, so it holds declarations alone (cffi refuses #include and #ifdef).
 *
 * Python pulls: a serving thread asks for the next complete request, runs the application and
 * hands back the response. Nothing calls from C into Python.
 */

/* The sockets and their event loop: one a process, or several where Python has no GIL. */
typedef struct pw_server pw_server;
typedef struct pw_thread pw_thread; /* one serving thread and the request it is at */
/* How many connections each of the servers has that share the listening sockets, in any process. */
typedef struct pw_balance pw_balance;

/* What is done with a field whose name holds an underscore. */
enum { PW_UNDERSCORE_DROP = 0, PW_UNDERSCORE_REFUSE = 1, PW_UNDERSCORE_ALLOW = 2 };

/* Sizes are bytes, times are milliseconds. Copied by pw_server_new. */
typedef struct {
    int64_t max_head_size;
    int64_t head_memory_total; /* of what all connections wait with, until it is a request */
    int64_t max_body_size;     /* 0: no limit */
    int64_t body_memory;       /* of one request */
    int64_t body_memory_total; /* of all */
    int64_t response_buffer;
    int64_t response_spool;       /* of one response */
    int64_t response_spool_total; /* of all */
    int32_t max_fields;
    int32_t max_connections;
    int32_t threads; /* the most serving threads there may be */
    int32_t gil;     /* of these threads Python runs one at a time */
    int32_t underscore_fields;
    int32_t timeout_head;
    int32_t timeout_body;
    int32_t timeout_write;
    int32_t timeout_keep_alive;
    int32_t timeout_drain;
    int32_t timeout_graceful;
    int32_t timeout_request; /* 0: none */
    int32_t timeout_queue;   /* that a complete request waits for a thread; 0: none */
    int32_t access_file;     /* the descriptor that the access log goes to, or -1; the caller's */
    int32_t access_json;     /* values are escaped for JSON strings */
    int32_t access_prompt;   /* a line does not wait for others: for a terminal */
    int64_t access_program_size;
    pw_balance *balance; /* borrowed as long as the server lives; NULL: it has its sockets alone */
    /* The rest is borrowed during pw_server_new. */
    const char *access_program; /* the lines of the access log: see PW_ATOM_LITERAL */
    const char *health_path;    /* answered by the core; empty: none */
    const char *live_path;      /* the same, and with 200 while the server stops, too */
    const char *temporary_directory;
    const char *poller; /* pw_poller_name, or "auto" or NULL: the first of them */
} pw_settings;

/*
 * A program of the access log is atoms, one after the other. An atom is PW_ATOM_HEAD bytes, its code
 * and the size of its text as a number of two bytes, and the text: of the two FIELD codes (a name, in
 * lower case), LITERAL and the two IF codes. The text of an IF code begins with its condition, and
 * what follows is in the line only if that holds: PW_ATOM_STATUS_SIZE byte, the first digit of the
 * status, or PW_ATOM_SLOW_SIZE bytes, a number, the least duration in milliseconds. The higher bytes
 * of a number come first.
 */
#define PW_ATOM_HEAD 3
#define PW_ATOM_STATUS_SIZE 1
#define PW_ATOM_SLOW_SIZE 4
#define PW_ATOM_LITERAL 1
#define PW_ATOM_ADDRESS 2
#define PW_ATOM_USER 3
#define PW_ATOM_METHOD 4
#define PW_ATOM_TARGET 5
#define PW_ATOM_PATH 6
#define PW_ATOM_QUERY 7
#define PW_ATOM_PROTOCOL 8
#define PW_ATOM_FIELD 9
#define PW_ATOM_TIME 10
#define PW_ATOM_STATUS 11
#define PW_ATOM_BYTES 12
#define PW_ATOM_BYTES_OR_DASH 13
#define PW_ATOM_SECONDS 14
#define PW_ATOM_DECIMAL_SECONDS 15
#define PW_ATOM_MILLISECONDS 16
#define PW_ATOM_MICROSECONDS 17
#define PW_ATOM_QUEUE 18 /* microseconds from complete to the application */
#define PW_ATOM_RESPONSE_FIELD 19
#define PW_ATOM_CLOCK 20    /* the time of day: 12:00:00 */
#define PW_ATOM_DURATION 21 /* with its unit: 0.4 ms, or 1.25 s */
#define PW_ATOM_IF_STATUS 22
#define PW_ATOM_IF_SLOW 23

/*
 * The request's facts that do not fit the number pw_next returns.
 * Valid until the thread's next call of pw_next or pw_respond.
 */
typedef struct {
    int64_t exchange;       /* the number of this request and its response: never used twice */
    int64_t content_length; /* of the decoded content */
    const char *content;    /* the content in memory, or NULL; borrowed until the response ends */
    /* The temporary file with the content, or -1. Python sets it to -1 when it takes the file, and
     * closes that; the core closes one that Python has not taken by the end of the response. */
    int32_t content_file;
    int32_t listener; /* index of the listening socket, in the order of pw_server_listen */
    int64_t sent;     /* content of the response that has ended last, in bytes */
    /*
     * Written by Python; the core sets it to 0 with each request. 1: Python lends bytes to the core
     * for this response, and keeps them under the number `exchange` until PW_NEWS_SENT names it. The
     * order is: set this, keep the bytes, hand them over. Then a signal handler that raises at any
     * point leaves nothing behind: the core names the number once, whatever has become of the response.
     */
    int32_t lends;
    int64_t block_size; /* of the block of values: see pw_thread_block */
} pw_request;

/* To be made before the processes are forked. Returns NULL with errno set. */
pw_balance *pw_balance_new(void);
void pw_balance_free(pw_balance *balance);
/* That process has ended: nobody is to leave connections to it. */
void pw_balance_forget(pw_balance *balance, int32_t process);

/* The pollers that this build has, by number, the best one first; NULL past the last one. */
const char *pw_poller_name(int32_t number);
/* Returns NULL with errno set; ENOTSUP: this build does not have the poller. */
pw_server *pw_server_new(const pw_settings *settings);
/*
 * The descriptor is listening and non-blocking, and stays the caller's: it is duplicated, and the
 * duplicate closed while the server drains. Returns 0, or an errno.
 */
int32_t pw_server_listen(pw_server *server, int32_t descriptor);
/*
 * For processes that replace each other on the same sockets: from is one end of a pair of sockets
 * (AF_UNIX, SOCK_STREAM) that they share, to the other one; both are non-blocking and stay the
 * caller's. When this server stops, it sends connections whose next request has not begun to `to`,
 * unless the pair has been shut down; what comes from `from` it serves as if it had accepted it. To
 * be called after pw_server_listen, once. Returns 0, or an errno.
 */
int32_t pw_server_share(pw_server *server, int32_t from, int32_t to);
/*
 * How a server stops, in the order of their urgency: the most urgent that was asked for holds.
 *
 * PW_DRAIN answers every request on every connection that the system has accepted by then: it goes on
 * accepting while connections wait on the listening sockets, as room becomes free, and closes the
 * sockets once none waits. PW_LEAVE is for a server whose sockets others go on accepting from: it
 * takes what waits now and has room, and leaves the rest to them. Both end after timeout_graceful at
 * the latest, and sooner where nothing is left but requests of PW_WATCH_STUCK; requests that wait for
 * the threads of these get a 503. PW_END cuts what is not over.
 */
#define PW_DRAIN 1
#define PW_LEAVE 2
#define PW_END 3
/* May be called from any thread and from a signal handler, any number of times. */
void pw_server_stop(pw_server *server, int32_t how);
/*
 * The server is to stop soon. Until it is told so it accepts and serves as before, but health_path is
 * answered with 503, and each response is the last one of its connection. From any thread and from a
 * signal handler.
 */
void pw_server_announce_stop(pw_server *server);
/* The access log goes to this descriptor from now on; lines that wait go to the one before. */
void pw_server_log_to(pw_server *server, int32_t descriptor);
/* How many requests it has handed out. May be called from any thread. */
int64_t pw_server_requests(pw_server *server);
/* Ends all connections. No thread of the server may be in a call, or call again but pw_thread_free. */
void pw_server_free(pw_server *server);

/* Returns NULL with errno set. Its calls may come from one thread at a time only. The number is the
 * caller's, for pw_watch to name it by. */
pw_thread *pw_thread_new(pw_server *server, int32_t number);
void pw_thread_free(pw_thread *thread);
/*
 * Has the thread return PW_IDLE if it waits for a request, or when it next would. From any thread. A
 * Python without the GIL has each thread itself free what it has made and another released, which
 * one that waits in the core does not get to.
 */
void pw_thread_nudge(pw_thread *thread);

/*
 * Looks after the serving threads: to be called again and again by a thread of its own that serves
 * nothing, where there may be more than one. Blocks, and returns what is to be done, with PW_WATCH_MASK:
 * PW_WATCH_START, one more thread that calls pw_next; PW_WATCH_INCIDENT, incidents are to be taken;
 * PW_WATCH_SLOW or PW_WATCH_STUCK, a request has run for longer than timeout_request, or twice that, in
 * the thread whose number is in the bits from PW_WATCH_SHIFT on; PW_WATCH_STOP, nothing any more, and
 * in these bits how many threads will not come back, where all that are at a request are such as
 * PW_WATCH_STUCK was told of.
 */
#define PW_WATCH_MASK 7
#define PW_WATCH_SHIFT 3
#define PW_WATCH_STOP 0
#define PW_WATCH_START 1
#define PW_WATCH_SLOW 2
#define PW_WATCH_STUCK 3
#define PW_WATCH_INCIDENT 4
int32_t pw_watch(pw_server *server);
/* The thread of PW_WATCH_START could not be started; for a second no other is asked for. */
void pw_watch_failed(pw_server *server);

/*
 * A request that was accepted and not answered in full, or answered with 503 or 507, for the error
 * log: what has happened, and where it was.
 */
#define PW_INCIDENT_STORAGE 1       /* its content could not be stored: 507 */
#define PW_INCIDENT_MEMORY 2        /* no memory: 503, or the end of the connection */
#define PW_INCIDENT_WRITE_TIMEOUT 3 /* the client has taken nothing for timeout_write */
#define PW_INCIDENT_STOP 4          /* the server has stopped without waiting any longer */
#define PW_INCIDENT_SHORT 5         /* a file had fewer bytes than when it was to be sent */
#define PW_INCIDENT_ERROR 6         /* another error of the system */
#define PW_INCIDENT_LOST 7          /* so many more, `unsent`, for which there was no memory */
#define PW_INCIDENT_ABANDONED 8     /* an exception came between the application and the response */
#define PW_INCIDENT_BACKLOG 9       /* at the end connections were waiting to be accepted */
#define PW_INCIDENT_HEADS 10 /* head_memory_total is reached, some get 503; told now and then */
#define PW_INCIDENT_QUEUE 11 /* no thread was free for timeout_queue: 503; told now and then */
#define PW_INCIDENT_STUCK 12 /* no thread will be free, and the server stops: the same */
#define PW_INCIDENT_LINE 1024
typedef struct {
    int32_t what;
    int32_t error;    /* errno, where there is one */
    int64_t unsent;   /* bytes of the response that are known and not sent */
    char address[46]; /* of the client; empty for a unix socket */
    char port[6];
    char line[PW_INCIDENT_LINE]; /* method and target, as received and as far as known */
} pw_incident;
/* The next one; 0: there is none. May be called from any thread. */
int32_t pw_incident_take(pw_server *server, pw_incident *to);

/* The block of values of the thread's request; its length is request.block_size. */
const char *pw_thread_block(pw_thread *thread);
int64_t pw_thread_block_size(pw_thread *thread);
pw_request *pw_thread_request(pw_thread *thread);

/*
 * The number that pw_next and pw_respond return: negative, such as PW_STOP, or
 *
 *     number & PW_KIND                            one of PW_SAME ... PW_STORE
 *     number & PW_CONTENT                         and the other bits below: PW_OTHER_NAMES, ...
 *     number >> PW_ENTRY_SHIFT & PW_ENTRY_MASK    the cache entry of PW_SAME, PW_CHANGED and PW_STORE
 *
 * It is small, because Python counts fastest with what is below 2**30. The block has
 * request.block_size bytes: one byte for each value that numbers its key (pw_key) and is never 0, then
 * NUL, then the values, latin-1, joined by NUL. The last value is PATH_INFO, the only one that may hold
 * NUL itself. A value whose number is PW_OTHER_NAME is its key, the byte 1, and the value proper.
 * Where a block is of a whole head, three values are only told if they are not the usual ones:
 * REQUEST_METHOD if it is not GET, SERVER_PROTOCOL if not HTTP/1.1, QUERY_STRING if not empty.
 */
#define PW_KIND 3
#define PW_SAME 0        /* the head is the one the entry's template was made of; no block */
#define PW_CHANGED 1     /* the same but for the values in the block */
#define PW_NEW 2         /* nothing is known of it */
#define PW_STORE 3       /* the same, and the environ may be kept as the entry's template */
#define PW_CONTENT 4     /* there is content: see pw_request */
#define PW_OTHER_NAMES 8 /* the block holds keys without a number */
#define PW_NEWS 16       /* pw_news has something to say */
#define PW_IN_FILE 32    /* the content is in a file */
#define PW_ENTRY_SHIFT 6
#define PW_ENTRY_MASK 2047
#define PW_OTHER_NAME 255
#define PW_STOP -1 /* the server has stopped: no more requests */
#define PW_STARTED                                                                                 \
    -2 /* pw_respond: the head has been sent already, by pw_send_first; nothing is done */
#define PW_IDLE -3 /* no request, but news: see pw_news, then call pw_next */

/* The environ key with this number, or NULL past the last one. */
const char *pw_key(int32_t number);

/*
 * The next complete request, or PW_IDLE or PW_STOP. Blocks. A request that the thread has not finished
 * is abandoned (an exception came between two calls): its connection is closed, and there is an incident.
 */
int64_t pw_next(pw_thread *thread);

/*
 * For the only serving thread of a server, where that thread has other things to do as well. All of
 * them return at a signal, so that its handler can run.
 *
 * pw_next_within is pw_next that waits at most once, and at most so many milliseconds: then PW_IDLE.
 *
 * pw_settle is for a thread that will not be back soon: it sends what is unsent, without handing out
 * a request, waits at most once for that, and returns how many responses are still unsent. What has
 * been received meanwhile keeps the descriptor readable.
 *
 * The descriptor can be polled: readable when there is something for pw_next to do. -1: the poller
 * has none, which is so for poll(2).
 * pw_server_wake ends a wait; from any thread, or a signal handler.
 */
int64_t pw_next_within(pw_thread *thread, int32_t timeout_ms);
int32_t pw_settle(pw_thread *thread, int32_t timeout_ms);
int32_t pw_server_descriptor(pw_server *server);
void pw_server_wake(pw_server *server);

/*
 * What Python need not keep any longer, one at a time; -1 when there is no more. Each is said again
 * until pw_news_done, for a signal handler may raise before it is acted upon. One thread at a time.
 * With PW_NEWS_MASK it is PW_NEWS_ENTRY: the entry's connection has ended, its template must go; or
 * PW_NEWS_SENT: nothing lent for the exchange is needed any more. The bits from PW_NEWS_SHIFT on are the
 * number of the entry, or of the exchange.
 */
#define PW_NEWS_MASK 1
#define PW_NEWS_SHIFT 1
#define PW_NEWS_ENTRY 0
#define PW_NEWS_SENT 1
int64_t pw_news(pw_thread *thread);
void pw_news_done(pw_thread *thread);

/*
 * Response heads come as "HTTP/1.1 200 OK\r\nName: value\r\n", without the empty line. The core
 * adds the framing fields, and Date and Server where the flags ask for them.
 */
#define PW_ADD_DATE 1
#define PW_ADD_SERVER 2
#define PW_CLOSE 4      /* the connection is to be closed after this response */
#define PW_HAS_LENGTH 8 /* the head has a Content-Length, passed as length */
#define PW_FINISHED 16  /* the data is in memory already: no back-pressure */
#define PW_RETURN 32    /* pw_respond: do not wait for the next request, return PW_IDLE */

/*
 * A whole response, and then the next request, or PW_IDLE. Never waits for the client. With
 * request.lends the core may read `body` after the call has returned, and the call returns PW_IDLE at
 * once; otherwise it keeps a copy of what the client has not taken. Nothing else is ever borrowed.
 */
int64_t pw_respond(pw_thread *thread, const char *head, int64_t head_size, const char *body,
                   int64_t body_size, int32_t flags);

/*
 * A response in parts: pw_send_first, any number of pw_send_data or pw_send_file, pw_send_end, and
 * pw_next. pw_send_first and pw_send_data may be called from any thread, at once: one call waits for
 * the other, so that parts are never mixed. `exchange` says which response the caller means: after its
 * end they return PW_OVER and do nothing, whatever request the thread is at by then.
 *
 * The data are sent or copied when a call returns, but for those with PW_FINISHED and request.lends,
 * which the core may read until PW_NEWS_SENT. Without PW_FINISHED what is more than response_buffer
 * goes to a file, up to response_spool; only beyond that the call waits for the client.
 */
#define PW_COMPLETE 1 /* as many bytes as the Content-Length says have been handed over */
#define PW_OVERFLOW 2 /* more than that: the rest is dropped */
#define PW_UNWANTED 3 /* the client gets no content (RFC 9110 section 6.4.1): HEAD, 1xx, 204, 304 */
#define PW_GONE -1    /* the client is not there any more */
#define PW_REFUSED -2 /* pw_send_file: it cannot be sent so; the data can still be read and sent */
#define PW_OVER -3    /* the response has ended */
#define PW_COPY_MOST 16384 /* data not larger than this are never borrowed */
/*
 * The head, if it has not been sent, and data, which may be empty; the head leaves with the first data.
 * length is the Content-Length that the head has, or -1: chunked, or closed on HTTP/1.0.
 */
int32_t pw_send_first(pw_thread *thread, int64_t exchange, const char *head, int64_t head_size,
                      int64_t length, int32_t head_flags, const char *data, int64_t size,
                      int32_t flags);
int32_t pw_send_data(pw_thread *thread, int64_t exchange, const char *data, int64_t size,
                     int32_t flags);
/* The descriptor is duplicated. No more is sent than the Content-Length allows. */
int32_t pw_send_file(pw_thread *thread, int32_t descriptor, int64_t offset, int64_t size);
/* How many bytes are missing from what the Content-Length says. */
int64_t pw_content_missing(pw_thread *thread);
/* cut: the content is not complete, and the client must see that. */
void pw_send_end(pw_thread *thread, int32_t cut);
/* pw_send_end, and then the next request, or PW_IDLE: at once where bytes are lent. */
int64_t pw_finish(pw_thread *thread, int32_t cut);
/* An interim response (1xx), head and empty line, for HTTP/1.1 clients; before pw_send_first. Returns
 * 0, or PW_GONE. */
int32_t pw_send_interim(pw_thread *thread, const char *head, int64_t head_size);
/*
 * How far the current request is, for a caller that has lost count by an error: there is none, or
 * nothing has been sent (pw_respond can answer it), or its head has (pw_send_end can end it).
 */
#define PW_REQUEST_NONE 0
#define PW_REQUEST_WAITS 1
#define PW_REQUEST_BEGUN 2
int32_t pw_request_state(pw_thread *thread);
/* 1 when the client has closed its side or is gone, else 0. */
int32_t pw_client_gone(pw_thread *thread);
/*
 * For a response in parts that has nothing to send at the moment. Returns 0, PW_OVER, PW_UNWANTED, or
 * PW_GONE: also where the client has closed its side for PW_HALF_CLOSED_MS, and so has most likely gone.
 */
#define PW_HALF_CLOSED_MS 3000
int32_t pw_check_client(pw_thread *thread, int64_t exchange);
/* The number of the exchange that the thread is at, or of its last one; from any thread. */
int64_t pw_thread_exchange(pw_thread *thread);

/*
 * Around fork(2), in the process that has the server: pw_server_hold before it, then pw_server_unhold in
 * the parent, or pw_server_forked in the child. All by one thread; a second call of the same changes
 * nothing. The server is the parent's: in the child nothing of it
 * is open any more, and every call returns as if the server had stopped.
 */
void pw_server_hold(pw_server *server);
void pw_server_unhold(pw_server *server);
void pw_server_forked(pw_server *server);

/* Lets the system send this process a signal when its parent dies. 0, or an errno. */
int32_t pw_die_with_parent(int32_t signal);

/* Whether the system gives this process the children of others whose parents have ended. */
int32_t pw_gets_orphans(void);

/*
 * For a process that is the server's own: one heap for all threads. glibc would give each thread its
 * own, and they grow to the most that each has ever held; Python's lock lets one allocate at a time
 * anyway: not for a Python without it. It keeps up to 8 MiB that are free; after a peak pw_watch gives
 * the rest back once no request has come for a while. A value that the user has chosen
 * (MALLOC_ARENA_MAX and the like, GLIBC_TUNABLES) stays. To be called before threads are started.
 */
void pw_share_heap(void);

/* What this core was built of, and the SIMD it uses here: "gcc 12.2; epoll (or poll); ...; SSE4.2". */
const char *pw_build(void);
