/*
 * ThreadSanitizer watches this program. Its threads do at the same time everything that threads can
 * do to the servers of a process, which share a listening socket and a log. The program does not
 * use site.h and check.h, which are for one thread.
 *
 *     serving.c    the part of Python: threads that serve, and threads of an application
 *     clients.c    clients, which check every byte
 *     scraper.c    a client of the metrics, which checks every page
 *     stress.c     starts and ends all of them
 *
 * The key of a response decides its content, and no other response has the same key. The request
 * and the response contain the number of the client. So a client notices a byte of another
 * response.
 */
#ifndef STRESS_H
#define STRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "api.h"

enum { LOOPS = 2, THREADS = 4, CONNECTIONS = 3 }; /* the last two of each loop */
/* Threads that wait for slow clients are replaced. A thread that
 * ends keeps its place a little longer. */
enum { PLACES = 4 * THREADS };
enum { SMALL = 2, LARGE = 400000, PART = 60000, PARTS = 3 };
enum { POST_IN_MEMORY = 3000, BODY_MEMORY = 8192, POST_IN_FILE = 20000 };
enum { HELPERS = 2, PIECES = 6, PIECE_MOST = 30000 }; /* HELPERS: of each serving thread */
enum { EXCHANGE_KEYS = LOOPS, UPLOAD_KEY = 1 << 30 }; /* a key is exchange * LOOPS + loop */

#define MUST(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition))

_Noreturn void fail(const char *file, int line, const char *what);
void sleep_us(int us);

/* The bytes [at, at + size) of the content with this key. */
void content_fill(char *to, int64_t key, size_t at, size_t size);
bool content_is(const char *data, int64_t key, size_t at, size_t size);

/* A piece of one of several writers. Each piece is one chunk. */
size_t piece_size(int64_t key, int writer, int number);
void piece_fill(char *to, int64_t key, int writer, int number);
enum { WRITERS = HELPERS + 1, PIECE_HEAD = 5 }; /* the writer, and the number in four bytes */
static inline int64_t piece_key(int64_t key, int writer, int number)
{
    return (key * WRITERS + writer) * 1000 + number;
}

extern atomic_bool stopping;
extern struct sockaddr_un address;
extern socklen_t address_size;

extern struct sockaddr_un exporter_address;
extern socklen_t exporter_address_size;

/* Counts of what the program has tried. */
extern atomic_int served, lent, dropped, starts, slow, incidents; /* of the servers */
extern atomic_int abandoned, too_late, together, taken;
extern atomic_int answered, of_pieces; /* of the clients */
extern atomic_int scrapes;             /* pages of the metrics */

/* ------------------------------------------------------------------ serving.c */

typedef struct loop loop;
typedef struct loan loan;

/* A thread of the application. It writes for the request of one serving thread. */
typedef struct {
    pthread_t id;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool busy, over;
    int writer, most;  /* most < 0: it writes until the response is over */
    pw_thread *thread; /* borrowed */
    int64_t exchange, key;
    int client;
} helper;

typedef struct {
    loop *of;
    int32_t number;
    _Atomic(pw_thread *) thread;
    helper helpers[HELPERS];
    pthread_t id;
    atomic_bool over; /* the thread has finished, and the next one may take the place */
} place;

struct loop {
    pw_server *server;
    int number;
    pthread_t watcher;
    place threads[PLACES];
    int thread_count; /* places used so far; main changes it first, then the watching thread */
    pthread_mutex_t lock;
    loan *loans; /* owned; with the lock */
    pthread_mutex_t taking_news;
    int templates[PW_ENTRY_MASK + 1]; /* by entry of the core's cache: see read_path */
};

void loop_init(loop *self, int number);
/* Starts one more serving thread. */
void start_thread(loop *self);
void take_news(loop *self, pw_thread *thread);
/* Call it when all serving threads have ended. Checks that the core has named every loan. */
void loop_end(loop *self);

/* ------------------------------------------------------------------ clients.c */

void *be_client(void *number);

/* ------------------------------------------------------------------ scraper.c */

void *scrape(void *unused);
/* Call it when no request is open. The number of requests on the page. */
int64_t scrape_requests(void);

#endif
