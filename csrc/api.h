/*
 * The functions and constants of the core that Python uses. cffi reads this file as its cdef, and
 * the C files include it, so nothing is declared twice. It has declarations alone, because cffi
 * refuses #include and #ifdef.
 *
 * Python pulls: a serving thread asks for the next complete request, runs the application and hands
 * the response to the core. C never calls Python.
 */

/* The sockets and their event loop. A process has one, or several if its Python has no GIL. */
typedef struct pw_server pw_server;
typedef struct pw_thread pw_thread; /* one serving thread and its current request */
/* The number of connections of each server, in any process, that shares the listening sockets. */
typedef struct pw_balance pw_balance;
/* The meters of each server, in any process, that is counted: see pw_metrics_map. */
typedef struct pw_metrics pw_metrics;
typedef struct pw_exporter pw_exporter; /* the thread that serves the page of the metrics */

/* The treatment of a field whose name contains an underscore. */
enum { PW_UNDERSCORE_DROP = 0, PW_UNDERSCORE_REFUSE = 1, PW_UNDERSCORE_ALLOW = 2 };

/* A network of peers that are trusted to say who their client is: see pw_settings.trusted. */
enum { PW_NETWORK_ALL = 0, PW_NETWORK_UNIX = 1, PW_NETWORK_V4 = 4, PW_NETWORK_V6 = 6 };
typedef struct {
    int32_t kind;     /* all peers, those of unix sockets, IPv4 or IPv6 */
    int32_t bits;     /* the first bits of the address that count */
    char address[16]; /* in network order; IPv4: the first four bytes */
} pw_network;

/* Sizes are in bytes, times in milliseconds. pw_server_new copies the struct. */
typedef struct {
    int64_t max_head_size;
    int64_t head_memory_total;
    int64_t max_body_size;     /* 0: no limit */
    int64_t body_memory;       /* for the content of one request */
    int64_t body_memory_total; /* for the content of all requests */
    int64_t response_buffer;
    int64_t response_spool;       /* for one response */
    int64_t response_spool_total; /* for all responses */
    int32_t max_fields;
    int32_t max_connections;
    int32_t threads; /* largest number of serving threads */
    int32_t gil;     /* 1: Python runs one of these threads at a time */
    int32_t underscore_fields;
    int32_t timeout_head;
    int32_t timeout_body;
    int32_t timeout_write;
    int32_t timeout_keep_alive;
    int32_t timeout_drain;
    int32_t timeout_graceful;
    int32_t timeout_request; /* 0: no limit */
    int32_t timeout_queue;   /* how long a complete request waits for a thread; 0: no limit */
    /* The descriptor of the access log, or -1. The caller owns it. A write must not block. A message
     * in a socket has whole lines. */
    int32_t access_file;
    int32_t access_json;   /* 1: values are escaped for JSON strings */
    int32_t access_prompt; /* 1: each line is written at once, for a terminal */
    int64_t access_program_size;
    int32_t request_ids;    /* each request gets an id: see pw_request.id */
    int64_t request_seed_1; /* random, like the next: what the ids are made of */
    int64_t request_seed_2;
    int32_t proxy_protocol; /* 1: each connection begins with a PROXY header of a trusted peer */
    int32_t drop_forwarded; /* 1: Forwarded and the X-Forwarded fields of other peers are removed */
    int64_t trusted_count;
    pw_balance *balance; /* borrowed as long as the server lives; NULL: it has its sockets alone */
    pw_metrics *metrics; /* the server keeps it; NULL: nothing is counted */
    /* The rest is borrowed during pw_server_new. */
    const char *access_program; /* the format of the access log: see PW_ATOM_LITERAL */
    const char *health_path;    /* the core answers its requests; empty: none */
    const char *live_path;      /* the same, with 200 also while the server stops */
    const char *root_path; /* moved from PATH_INFO; Python has it in SCRIPT_NAME; empty: none */
    const char *temporary_directory;
    /* The core uses Forwarded, the X-Forwarded fields and X-Request-ID of these peers alone. */
    const pw_network *trusted;
    const char *poller; /* a name from pw_poller_name; "auto" or NULL: the first one */
} pw_settings;

/*
 * The access log's format is a program: atoms, one after the other. An atom has PW_ATOM_HEAD bytes
 * and then its text. The first byte is its code; the other two are the size of the text. Only these
 * atoms have a text: LITERAL, FIELD and RESPONSE_FIELD (a field name in lower case), IF_STATUS and
 * IF_SLOW.
 *
 * The text of an IF atom begins with a condition. The rest of the text is in the line if the
 * condition holds. The condition of IF_STATUS has PW_ATOM_STATUS_SIZE bytes: the first digit of the
 * status. That of IF_SLOW has PW_ATOM_SLOW_SIZE bytes: the least duration in milliseconds. Numbers
 * are big-endian.
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
#define PW_ATOM_QUEUE 18 /* microseconds that the complete request waited for a thread */
#define PW_ATOM_RESPONSE_FIELD 19
#define PW_ATOM_CLOCK 20    /* the time of day: 12:00:00 */
#define PW_ATOM_DURATION 21 /* with its unit: 0.4 ms or 1.25 s */
#define PW_ATOM_IF_STATUS 22
#define PW_ATOM_IF_SLOW 23
#define PW_ATOM_REQUEST_ID 24 /* with request_ids only */
#define PW_REQUEST_ID_SIZE 129

/*
 * The facts about a request that do not fit into the number that pw_next returns. Valid until the
 * thread's next call of pw_next or pw_respond.
 */
typedef struct {
    int64_t exchange;       /* number of this request and its response, never used again */
    int64_t content_length; /* bytes of the decoded content */
    const char *content;    /* the content in memory, or NULL; borrowed until the response ends */
    /* The temporary file with the content, or -1. If Python takes the file, Python sets this to -1
     * and closes the file. Otherwise the core closes it at the end of the response. */
    int32_t content_file;
    int32_t listener;
    int64_t sent; /* bytes of content in the response that ended last */
    /*
     * Python writes this; the core sets it to 0 with each request. 1: Python lends bytes to the
     * core for this response, and keeps them under the number `exchange` until PW_NEWS_SENT names
     * that number. Python first sets this, then stores the bytes, then hands them to the core. So a
     * signal handler may raise at any point: the core names the number once, no matter how the
     * response ends.
     */
    int32_t lends;
    int64_t block_size;          /* bytes in the block of values: see pw_thread_block */
    char id[PW_REQUEST_ID_SIZE]; /* printable ASCII; empty without request_ids */
} pw_request;

/* Call it before the workers are forked. Returns NULL with errno set. */
pw_balance *pw_balance_new(void);
void pw_balance_free(pw_balance *balance);
/* The process has ended: the servers no longer leave connections to it. */
void pw_balance_forget(pw_balance *balance, int32_t process);

/*
 * The memory for the metrics of all servers. With a descriptor it is the memory of that file, which
 * must have pw_metrics_size bytes. Other processes may map the same file, and the caller closes it. -1:
 * memory that this process shares only with processes that it forks. Returns NULL with errno set.
 * EINVAL: another version of picowsgi has made the file. ENOTSUP: this machine cannot share counters.
 * The memory is unmapped after pw_metrics_free and the end of the servers and exporters that have it.
 */
int64_t pw_metrics_size(void);
pw_metrics *pw_metrics_map(int32_t descriptor);
void pw_metrics_free(pw_metrics *metrics);
/* The process has ended, or will serve no more. What it has counted stays. Call this before the parent
 * waits for the process, or its CPU time is not known any more. */
void pw_metrics_retire(pw_metrics *metrics, int32_t process);
/* A worker was replaced, or is about to be. Any process may call this. */
#define PW_RESTART_EXIT 0     /* it has ended */
#define PW_RESTART_SIGNAL 1   /* a signal has ended it */
#define PW_RESTART_TIMEOUT 2  /* it has sent no heartbeat, or its requests were stuck */
#define PW_RESTART_MEMORY 3   /* it had too much memory */
#define PW_RESTART_REQUESTS 4 /* it had served enough requests */
#define PW_RESTART_RELOAD 5   /* the application was loaded again */
#define PW_RESTART_REASONS 6
void pw_metrics_restart(pw_metrics *metrics, int32_t reason);

/*
 * Serves the page of the metrics at "/metrics" and "/", in a thread that needs neither the GIL nor a
 * server. The descriptor listens and does not block. The caller keeps it: the exporter makes a
 * duplicate. `info` has the labels of picowsgi_info. `paused`: see pw_exporter_pause. Returns NULL
 * with errno set.
 */
pw_exporter *pw_exporter_new(pw_metrics *metrics, int32_t listener, const char *info,
                             int32_t paused);
/* 1: leaves new connections to another process with the same listening socket. 0: takes them again. */
void pw_exporter_pause(pw_exporter *exporter, int32_t paused);
/* Around fork(2), as pw_server_hold, pw_server_unhold and pw_server_forked. */
void pw_exporter_hold(pw_exporter *exporter);
void pw_exporter_unhold(pw_exporter *exporter);
void pw_exporter_forked(pw_exporter *exporter);
/* Ends the thread. In a forked child this does nothing. */
void pw_exporter_free(pw_exporter *exporter);

/* The name of a poller in this build. Number 0 is the best one. NULL: past the last one. */
const char *pw_poller_name(int32_t number);
/* Returns NULL with errno set. ENOTSUP: this build does not have the poller. */
pw_server *pw_server_new(const pw_settings *settings);
/*
 * The descriptor listens and does not block. The caller keeps it: the core makes a duplicate, and
 * closes the duplicate while the server drains. Returns 0 or an errno.
 */
int32_t pw_server_listen(pw_server *server, int32_t descriptor);
/*
 * For processes that replace each other on the same sockets. They share pairs of sockets (AF_UNIX,
 * SOCK_STREAM). `from` is this process's end of the pair from the previous process, `to` is its end
 * of the pair to the next one. Both do not block, and the caller keeps them.
 *
 * When this server stops, it sends each connection whose next request has not begun through `to`,
 * unless the pair has been shut down. It serves connections that come from `from` as if it had
 * accepted them. Call it once, after pw_server_listen. Returns 0 or an errno.
 */
int32_t pw_server_share(pw_server *server, int32_t from, int32_t to);
/*
 * How a server stops, the least urgent way first. After several calls the most urgent one holds.
 *
 *     PW_DRAIN  The server answers every request on every connection that the system has accepted
 *               by then. It continues to accept while connections wait on the listening sockets
 *               and it has room. It closes a socket when no connection waits there.
 *     PW_LEAVE  The same, but other processes accept from the sockets too. The server accepts the
 *               connections that wait now and for which it has room, and leaves the rest to them.
 *     PW_END    The server closes all connections at once.
 *
 * PW_DRAIN and PW_LEAVE end after timeout_graceful at the latest, and sooner if every open request is
 * stuck (PW_WATCH_STUCK). The requests that wait for those threads get a 503.
 */
#define PW_DRAIN 1
#define PW_LEAVE 2
#define PW_END 3
/* May be called from any thread and from a signal handler, any number of times. */
void pw_server_stop(pw_server *server, int32_t how);
/*
 * For a server that a developer stops or restarts: cuts off each response that has begun and does not
 * end within about 0.1 s, also those that begin later. The connection is closed at once, even if the
 * thread is blocked in the application. The calls of that thread return PW_GONE. A thread that does
 * not come back within grace_ms does not delay the end of the drain. If the function is called
 * again, the shortest time holds. May be called from any thread, but not from a signal handler.
 * Needs pw_watch.
 */
void pw_server_cut_streams(pw_server *server, int32_t grace_ms);
/* The number of requests that have begun and whose responses are not sent, without those that were
 * cut off. May be called from any thread. */
int32_t pw_server_open(pw_server *server);
/*
 * Announces that the server will stop soon. It accepts and serves as before until pw_server_stop, but
 * answers health_path with 503, and closes each connection after its next response. May be called
 * from any thread and from a signal handler.
 */
void pw_server_announce_stop(pw_server *server);
/* Writes the access log to this descriptor from now on. Lines that wait go to the previous one. */
void pw_server_log_to(pw_server *server, int32_t descriptor);
/* Called when the server serves no more. Writes the lines of the access log that wait, for at most
 * `most` milliseconds, and stops after `quiet` milliseconds in which the file takes nothing. Returns
 * the number of dropped lines that no incident has reported. */
int64_t pw_server_log_end(pw_server *server, int32_t most, int32_t quiet);
/* How many fields of requests were left out because of an underscore in their name. */
int64_t pw_server_dropped(pw_server *server);
/* How many connections were closed because of their PROXY header: see PW_INCIDENT_PROXY_PEER. */
int64_t pw_server_proxy_refused(pw_server *server);
/* The number of requests that the server has handed to Python. May be called from any thread. */
int64_t pw_server_requests(pw_server *server);
/* Ends all connections. No thread may be in a call of this server. Afterwards a thread may only
 * call pw_thread_free. */
void pw_server_free(pw_server *server);

/* Returns NULL with errno set. Only one thread at a time may call functions with the result. The
 * number is the caller's: pw_watch returns it. */
pw_thread *pw_thread_new(pw_server *server, int32_t number);
void pw_thread_free(pw_thread *thread);
/*
 * The thread returns PW_IDLE: at once if it waits for a request, else when it would next wait. May
 * be called from any thread. In a Python without the GIL each thread frees the objects that it made
 * and another thread released. A thread that waits in the core cannot do that.
 */
void pw_thread_nudge(pw_thread *thread);

/*
 * The watcher's function. If there may be more than one serving thread, one more thread calls it
 * again and again. It blocks, and returns a number. number & PW_WATCH_MASK says what the caller
 * does next:
 *
 *     PW_WATCH_STOP      end: the server has stopped
 *     PW_WATCH_START     start one more thread that calls pw_next
 *     PW_WATCH_INCIDENT  take the incidents by pw_incident_take
 *     PW_WATCH_SLOW      a request has run for longer than timeout_request
 *     PW_WATCH_STUCK     a request has run for twice timeout_request
 *
 * number >> PW_WATCH_SHIFT is the number of the thread with that request. With PW_WATCH_STOP it is how
 * many threads will not come back, if every thread with a request is stuck, or its response was cut
 * off (pw_server_cut_streams).
 */
#define PW_WATCH_MASK 7
#define PW_WATCH_SHIFT 3
#define PW_WATCH_STOP 0
#define PW_WATCH_START 1
#define PW_WATCH_SLOW 2
#define PW_WATCH_STUCK 3
#define PW_WATCH_INCIDENT 4
int32_t pw_watch(pw_server *server);
/* The caller could not start the thread. For a second pw_watch returns no PW_WATCH_START. */
void pw_watch_failed(pw_server *server);

/*
 * An incident: a request that was accepted and not answered in full, or answered with 503 or 507.
 * It becomes a line in the error log.
 */
#define PW_INCIDENT_STORAGE 1       /* the content could not be stored: 507 */
#define PW_INCIDENT_MEMORY 2        /* out of memory: 503, or the connection is closed */
#define PW_INCIDENT_WRITE_TIMEOUT 3 /* the client has read nothing for timeout_write */
#define PW_INCIDENT_STOP 4          /* the server has stopped and no longer waits */
#define PW_INCIDENT_SHORT 5         /* a file has become shorter than the part to send */
#define PW_INCIDENT_ERROR 6         /* another error of the system */
#define PW_INCIDENT_LOST 7          /* `unsent` more incidents, for which there was no memory */
#define PW_INCIDENT_ABANDONED 8     /* an exception between the application and the response */
#define PW_INCIDENT_BACKLOG 9       /* at the end connections were waiting to be accepted */
#define PW_INCIDENT_HEADS 10 /* head_memory_total is reached: some requests get 503; rate-limited */
#define PW_INCIDENT_QUEUE 11 /* no thread was free for timeout_queue: 503; rate-limited */
#define PW_INCIDENT_LOG 12   /* `unsent` lines of the access log were dropped */
#define PW_INCIDENT_UNDERSCORE 13 /* a field was left out; reported once; `line` is its name */
#define PW_INCIDENT_STUCK 14 /* the server stops and no thread will be free: 503; rate-limited */
/* Connections that were closed because of their PROXY header; rate-limited. `unsent` is how many there
 * were since the last incident of that kind, `line` is the first line of the last one. */
#define PW_INCIDENT_PROXY_PEER 15      /* the peer is not trusted */
#define PW_INCIDENT_PROXY_MISSING 16   /* the first bytes are of no header */
#define PW_INCIDENT_PROXY_MALFORMED 17 /* the header is malformed */
#define PW_INCIDENT_PROXY_LONG 18      /* the header is longer than 4096 bytes */
#define PW_INCIDENT_PROXY_TIMEOUT 19   /* the header has not come within timeout_head */
#define PW_PROXY_KINDS 5
#define PW_INCIDENT_LINE 1024
typedef struct {
    int32_t what;
    int32_t error;    /* errno, or 0 */
    int64_t unsent;   /* bytes of the response that the core has and has not sent */
    char address[46]; /* the client's; empty if it is unknown, or for a unix socket */
    char port[6];
    int32_t has_proxy; /* 1: a proxy has named the client; the proxy is the peer of the socket */
    char proxy[46];    /* the address of the proxy; empty for a unix socket */
    char proxy_port[6];
    char id[PW_REQUEST_ID_SIZE]; /* empty: there is none */
    char line[PW_INCIDENT_LINE]; /* method and target as received; may be incomplete */
} pw_incident;
/* Copies the next incident. Returns 1, or 0: there is none. May be called from any thread. */
int32_t pw_incident_take(pw_server *server, pw_incident *to);

/* The block of values of the thread's request, request.block_size bytes. The thread owns it. */
const char *pw_thread_block(pw_thread *thread);
int64_t pw_thread_block_size(pw_thread *thread);
pw_request *pw_thread_request(pw_thread *thread);

/*
 * The number that pw_next and pw_respond return. It is negative, such as PW_STOP, or
 *
 *     number & PW_KIND                          one of PW_SAME ... PW_STORE
 *     number & PW_CONTENT                       and the other bits below: PW_OTHER_NAMES, ...
 *     number >> PW_ENTRY_SHIFT & PW_ENTRY_MASK  the cache entry of PW_SAME, PW_CHANGED and PW_STORE
 *
 * It is less than 2**30, because Python is fastest with such numbers.
 *
 * The block has request.block_size bytes. It begins with one byte for each value, the number of its
 * key (pw_key), which is never 0. A NUL and the values follow: latin-1, separated by NUL. The last
 * value is PATH_INFO; no other value can contain NUL. If the number is PW_OTHER_NAME, the value is
 * the key, the byte 1, and the value itself. A block of a whole head leaves out three values if
 * they are the usual ones: REQUEST_METHOD if it is GET, SERVER_PROTOCOL if it is HTTP/1.1, an empty
 * QUERY_STRING.
 */
#define PW_KIND 3
#define PW_SAME 0        /* the head equals that of the entry's template; no block */
#define PW_CHANGED 1     /* the same, except for the values in the block */
#define PW_NEW 2         /* a head without an entry */
#define PW_STORE 3       /* a new head, and Python may keep the environ as the entry's template */
#define PW_CONTENT 4     /* the request has content: see pw_request */
#define PW_OTHER_NAMES 8 /* the block has keys without a number */
#define PW_NEWS 16       /* pw_news has messages */
#define PW_IN_FILE 32    /* the content is in a file */
#define PW_UPGRADE 64    /* the client asks for another protocol: see pw_detach */
#define PW_ENTRY_SHIFT 7
#define PW_ENTRY_MASK 2047
#define PW_OTHER_NAME 255
#define PW_STOP -1 /* the server has stopped: no more requests */
#define PW_STARTED -2
#define PW_IDLE -3 /* no request: call pw_news, then pw_next again */

/* The environ key with this number. NULL: past the last one. */
const char *pw_key(int32_t number);

/*
 * The next complete request, or PW_IDLE or PW_STOP. Blocks. A request that the thread has not finished
 * is abandoned (an exception came between two calls): its connection is closed, and there is an incident.
 */
int64_t pw_next(pw_thread *thread);

/*
 * For a server with one serving thread that also does other work. A signal ends the wait of these
 * functions, so that its handler can run.
 *
 * pw_next_within is pw_next, but it waits at most once, for at most timeout_ms. After that it
 * returns PW_IDLE.
 *
 * pw_settle is for a thread that will not call pw_next soon. It sends what is unsent and takes no
 * request. It waits at most once, for at most timeout_ms. Returns the number of responses that are
 * still unsent. Requests that arrive meanwhile keep the descriptor readable.
 *
 * pw_server_descriptor returns a descriptor that the caller can poll: it is readable when pw_next
 * has work. The caller must not close it. -1: the poller has no descriptor, as with poll(2).
 *
 * pw_server_wake ends a wait. It may be called from any thread and from a signal handler.
 */
int64_t pw_next_within(pw_thread *thread, int32_t timeout_ms);
int32_t pw_settle(pw_thread *thread, int32_t timeout_ms);
int32_t pw_server_descriptor(pw_server *server);
void pw_server_wake(pw_server *server);

/*
 * The next message about an object that Python need not keep any longer, or -1: there is none. The
 * same message comes again until pw_news_done, because a signal handler may raise before Python has
 * acted on it. One thread at a time may take messages.
 *
 * message & PW_NEWS_MASK is PW_NEWS_ENTRY: the entry's connection has ended, so its template must
 * be removed. Or it is PW_NEWS_SENT: the core needs no byte that was lent for the exchange any
 * more. message >> PW_NEWS_SHIFT is the number of the entry or of the exchange.
 */
#define PW_NEWS_MASK 1
#define PW_NEWS_SHIFT 1
#define PW_NEWS_ENTRY 0
#define PW_NEWS_SENT 1
int64_t pw_news(pw_thread *thread);
void pw_news_done(pw_thread *thread);

/*
 * A response head is "HTTP/1.1 200 OK\r\nName: value\r\n", without the empty line. The core adds
 * the framing fields, and Date and Server if the flags say so.
 */
#define PW_ADD_DATE 1
#define PW_ADD_SERVER 2
#define PW_CLOSE 4      /* close the connection after this response */
#define PW_HAS_LENGTH 8 /* the head has a Content-Length already */
#define PW_FINISHED 16  /* all data are in memory already: no back-pressure */
#define PW_RETURN 32    /* pw_respond: return PW_IDLE instead of waiting for the next request */

/*
 * Sends a whole response, without waiting for the client. Then returns what pw_next returns. If
 * request.lends is 1, the core may read `body` after the call has returned, and the call returns
 * PW_IDLE at once. Otherwise the core copies the bytes that the client has not taken. It borrows
 * nothing else.
 */
int64_t pw_respond(pw_thread *thread, const char *head, int64_t head_size, const char *body,
                   int64_t body_size, int32_t flags);

/*
 * A response in parts: pw_send_first, then any number of pw_send_data or pw_send_file, then
 * pw_send_end and pw_next. Several threads may call pw_send_first and pw_send_data at once: a call
 * waits until the other one has returned, so parts are never mixed. `exchange` is the number of the
 * response that the caller means. If that response has ended, the calls return PW_OVER and do
 * nothing.
 *
 * When a call returns, the data are sent or copied. Only with PW_FINISHED and request.lends the
 * core may read them until PW_NEWS_SENT. Without PW_FINISHED the core writes more than
 * response_buffer to a file, up to response_spool. Beyond that the call waits for the client.
 *
 * The calls return 0 or one of these numbers:
 */
#define PW_COMPLETE 1 /* all bytes that the Content-Length promises have been handed over */
#define PW_OVERFLOW 2 /* more bytes than that: the rest is dropped */
#define PW_UNWANTED 3 /* the client gets no content (RFC 9110 section 6.4.1): HEAD, 1xx, 204, 304 */
#define PW_GONE -1    /* the client has disconnected, or the response cannot continue */
#define PW_REFUSED -2 /* pw_send_file: not from this file; read the data and send them instead */
#define PW_OVER -3    /* the response has ended */
#define PW_COPY_MOST 16384 /* bytes: the core copies data of this size or less */
/*
 * Sends the head, if it is not sent yet, together with the data, which may be empty. length is the
 * Content-Length in the head. -1: the response is chunked, or in HTTP/1.0 ends with the connection.
 */
int32_t pw_send_first(pw_thread *thread, int64_t exchange, const char *head, int64_t head_size,
                      int64_t length, int32_t head_flags, const char *data, int64_t size,
                      int32_t flags);
int32_t pw_send_data(pw_thread *thread, int64_t exchange, const char *data, int64_t size,
                     int32_t flags);
/* Duplicates the descriptor. Sends no more than the Content-Length allows. */
int32_t pw_send_file(pw_thread *thread, int32_t descriptor, int64_t offset, int64_t size);
/* The number of bytes that the Content-Length promises and that have not been handed over. */
int64_t pw_content_missing(pw_thread *thread);
/* Ends the response. cut: 1: the content is not complete, and the client must notice that. */
void pw_send_end(pw_thread *thread, int32_t cut);
/* pw_send_end, and then pw_next. If bytes are lent, returns PW_IDLE at once instead. */
int64_t pw_finish(pw_thread *thread, int32_t cut);
/* Sends an interim response (1xx), which is head and empty line, if the client speaks HTTP/1.1.
 * Only before pw_send_first. Returns 0 or PW_GONE. */
int32_t pw_send_interim(pw_thread *thread, const char *head, int64_t head_size);
/*
 * The state of the thread's current request, for a caller that an exception has interrupted. NONE:
 * there is no request. WAITS: nothing has been sent, and pw_respond can answer. BEGUN: the head has
 * been sent, and pw_send_end can end the response.
 */
#define PW_REQUEST_NONE 0
#define PW_REQUEST_WAITS 1
#define PW_REQUEST_BEGUN 2
int32_t pw_request_state(pw_thread *thread);
/*
 * Gives the connection of an exchange to the application, as for WebSocket (RFC 6455). The number of
 * its request has PW_UPGRADE. Any thread may call these functions.
 *
 * pw_unread copies the first `most` bytes that the core has received after the request into `to`.
 * Returns the number of all these bytes, or PW_OVER. Call it before pw_detach, which drops them.
 *
 * pw_family returns the address family of the connection, or PW_OVER.
 *
 * pw_detach makes `descriptor`, which is the caller's, refer to the client's socket, as dup2(2) does.
 * The socket blocks. The core sends the earlier responses of the connection before, and waits for
 * the client. From then on the core does not read, write, count or time the connection, and drops
 * the response that the thread hands over. The log has a line with the status 101 when the
 * connection ends, or with keeps when the core gives it away.
 *
 *     keeps 0   The core has the socket too, to end it: in pw_detached_end, or when the thread comes
 *               back. When the server begins to drain, the core shuts it for reading. At the end of
 *               the drain it shuts it for writing, too.
 *     keeps 1   The core closes its descriptor. The application ends the connection.
 *
 * Returns 0, PW_OVER (the exchange has ended, or its connection was taken before), PW_REFUSED (its
 * response has begun), or PW_GONE (the client has disconnected, or the server has stopped).
 */
int64_t pw_unread(pw_thread *thread, int64_t exchange, char *to, int64_t most);
int32_t pw_family(pw_thread *thread, int64_t exchange);
int32_t pw_detach(pw_thread *thread, int64_t exchange, int32_t descriptor, int32_t keeps);
/* Ends the connection: the client gets all bytes that were sent, then the end. A second call does
 * nothing. */
void pw_detached_end(pw_thread *thread, int64_t exchange);
/* Whether pw_detach was successful for this exchange, and the thread has no later one. */
int32_t pw_is_detached(pw_thread *thread, int64_t exchange);
/* Returns 1 if the client has closed its side or has disconnected, else 0. */
int32_t pw_client_gone(pw_thread *thread);
/*
 * For a response in parts that has nothing to send at the moment. Returns 0, PW_OVER, PW_UNWANTED
 * or PW_GONE. PW_GONE also means that the client closed its side PW_HALF_CLOSED_MS ago: most likely
 * it has disconnected.
 */
#define PW_HALF_CLOSED_MS 3000
int32_t pw_check_client(pw_thread *thread, int64_t exchange);
/* The number of the thread's current or last exchange. May be called from any thread. */
int64_t pw_thread_exchange(pw_thread *thread);

/*
 * Around fork(2), in the server's process: one thread calls pw_server_hold before the fork. After
 * it the parent calls pw_server_unhold and the child calls pw_server_forked. A second call of the
 * same function changes nothing. The server belongs to the parent. In the child nothing of it is
 * open any more, and every call returns as if the server had stopped.
 */
void pw_server_hold(pw_server *server);
void pw_server_unhold(pw_server *server);
void pw_server_forked(pw_server *server);

/* The system sends this process the signal when its parent dies. Returns 0 or an errno. */
int32_t pw_die_with_parent(int32_t signal);

/* Whether the system gives this process the children of others whose parents have ended. */
int32_t pw_gets_orphans(void);

/*
 * Makes all threads use one heap. glibc would give each thread a heap of its own, and each of them
 * grows to the largest size that it ever had. With the GIL one thread allocates at a time, so one heap
 * is enough; do not call this in a Python without the GIL. The process keeps up to 8 MiB that are
 * free. After a peak pw_watch returns the rest to the system when no request has come for a while.
 * Values that the user has chosen (MALLOC_ARENA_MAX and the like, GLIBC_TUNABLES) stay. Call it before
 * threads start, in a process that only serves.
 */
void pw_share_heap(void);

/* A description of the build, with the SIMD that it uses on this machine:
 * "gcc 12.2; epoll (or poll); ...; SSE4.2". */
const char *pw_build(void);
