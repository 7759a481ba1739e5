/* Starts and ends the servers and the clients: see stress.h. */
#include "stress.h"

#include "../audit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = LOOPS * CONNECTIONS }; /* with more, idle connections would be closed */
enum { RUN_MS = 2500, MINUTE_MS = 60000 };

static loop loops[LOOPS];
struct sockaddr_un address, exporter_address;
socklen_t address_size, exporter_address_size;
atomic_bool stopping;
atomic_int served, lent, dropped, starts, slow, incidents, abandoned, too_late, together, taken;
atomic_int answered, of_pieces, scrapes;

_Noreturn void fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s (errno: %s)\n", file, line, what, strerror(errno));
    abort();
}

void sleep_us(int us)
{
    struct timespec time = {0, us * 1000L};
    nanosleep(&time, NULL);
}

/* ------------------------------------------------------------------ content */

enum { KEYS = 65521 };
static char noise[LARGE + KEYS]; /* each content is a part of it */

static void make_noise(void)
{
    uint64_t state = 1;
    for (size_t i = 0; i < sizeof noise; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        noise[i] = (char)(state >> 56);
    }
}

static const char *content_at(int64_t key, size_t at)
{
    return noise + (uint64_t)key * 40503 % KEYS + at;
}

void content_fill(char *to, int64_t key, size_t at, size_t size)
{
    memcpy(to, content_at(key, at), size);
}

bool content_is(const char *data, int64_t key, size_t at, size_t size)
{
    return memcmp(data, content_at(key, at), size) == 0;
}

size_t piece_size(int64_t key, int writer, int number)
{
    static const size_t sizes[] = {PIECE_HEAD, 20, 700, 1500, PIECE_MOST};
    return sizes[(uint64_t)piece_key(key, writer, number) % (sizeof sizes / sizeof sizes[0])];
}

void piece_fill(char *to, int64_t key, int writer, int number)
{
    to[0] = (char)writer;
    memcpy(to + 1, &number, sizeof number);
    content_fill(to + PIECE_HEAD, piece_key(key, writer, number), 0,
                 piece_size(key, writer, number) - PIECE_HEAD);
}

/* ------------------------------------------------------------------ the whole program */

static void *watch(void *its_loop)
{
    loop *self = its_loop;
    for (int32_t task; (task = pw_watch(self->server) & PW_WATCH_MASK) != PW_WATCH_STOP;) {
        if (task == PW_WATCH_INCIDENT) {
            for (pw_incident incident; pw_incident_take(self->server, &incident);)
                atomic_fetch_add(&incidents, 1);
        } else if (task == PW_WATCH_START) {
            atomic_fetch_add(&starts, 1);
            start_thread(self);
        } else {
            atomic_fetch_add(&slow, 1);
            for (int i = 0; i < self->thread_count; i++)
                if (atomic_load(&self->threads[i].thread) != NULL)
                    pw_thread_nudge(self->threads[i].thread);
        }
    }
    return NULL;
}

static int listen_somewhere(struct sockaddr_un *at, socklen_t *size)
{
    *size = sizeof *at;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    MUST(listener >= 0);
    *at = (struct sockaddr_un){.sun_family = AF_UNIX}; /* the system chooses a name */
    MUST(bind(listener, (const struct sockaddr *)at, sizeof at->sun_family) == 0);
    MUST(listen(listener, 128) == 0);
    MUST(getsockname(listener, (struct sockaddr *)at, size) == 0);
    return listener;
}

static pw_server *open_server(int log, int listener, pw_balance *balance, pw_metrics *metrics)
{
    static const char program[] = "\2\0\0\1\0\1 \4\0\0\11\0\12user-agent\13\0\0\20\0\0\22\0\0"
                                  "\23\0\6x-size\1\0\1\n";
    pw_server *server = pw_server_new(&(pw_settings){
        .max_head_size = 65536,
        .head_memory_total = 32 << 20,
        .max_body_size = 1 << 20,
        .body_memory = BODY_MEMORY,
        .body_memory_total = 4 * BODY_MEMORY,
        .response_buffer = 65536,
        .max_fields = 100,
        .max_connections = CONNECTIONS,
        .threads = THREADS,
        .timeout_head = MINUTE_MS,
        .timeout_body = MINUTE_MS,
        .timeout_write = MINUTE_MS,
        .timeout_keep_alive = MINUTE_MS,
        .timeout_drain = 50,
        .timeout_graceful = MINUTE_MS,
        .timeout_request = 4,
        .access_file = log,
        .balance = balance,
        .metrics = metrics,
        .access_program = program,
        .access_program_size = sizeof program - 1,
        .health_path = "/health",
        .live_path = "/live",
        .root_path = "",
        .temporary_directory = "/tmp",
        .poller = getenv("PICOWSGI_POLLER"),
    });
    MUST(server != NULL);
    MUST(pw_server_listen(server, listener) == 0);
    return server;
}

static int64_t count_requests(void)
{
    int64_t count = 0;
    for (int i = 0; i < LOOPS; i++)
        count += pw_server_requests(loops[i].server);
    return count;
}

int main(void)
{
    pthread_t clients[CLIENTS], scraper;
    pw_balance *balance = pw_balance_new();
    pw_metrics *metrics = pw_metrics_map(-1);
    MUST(balance != NULL && metrics != NULL);
    signal(SIGPIPE, SIG_IGN);
    make_noise();
    int logs[2] = {open("/dev/null", O_WRONLY | O_CLOEXEC),
                   open("/dev/null", O_WRONLY | O_CLOEXEC)};
    MUST(logs[0] >= 0 && logs[1] >= 0);
    int listener = listen_somewhere(&address, &address_size);
    int pages = listen_somewhere(&exporter_address, &exporter_address_size);
    pw_exporter *exporter = pw_exporter_new(metrics, pages, "version=\"1\"", 0);
    MUST(exporter != NULL);
    for (loop *each = loops; each < loops + LOOPS; each++) {
        loop_init(each, (int)(each - loops));
        each->server = open_server(logs[0], listener, balance, metrics);
        start_thread(each);
        MUST(pthread_create(&each->watcher, NULL, watch, each) == 0);
    }
    for (intptr_t i = 0; i < CLIENTS; i++)
        MUST(pthread_create(&clients[i], NULL, be_client, (void *)i) == 0);
    MUST(pthread_create(&scraper, NULL, scrape, NULL) == 0);

    int64_t requests = 0;
    for (int i = 0; i < RUN_MS / 100; i++) {
        sleep_us(100000);
        for (int each = 0; each < LOOPS; each++) {
            pw_server_log_to(loops[each].server, logs[i % 2]);
            pw_server_hold(loops[each].server); /* as around fork(2) */
            audit(loops[each].server);
            pw_server_unhold(loops[each].server);
        }
        pw_exporter_hold(exporter);
        pw_exporter_unhold(exporter);
        pw_exporter_pause(exporter, i % 2);
        pw_exporter_pause(exporter, 0);
        MUST(count_requests() >= requests);
        requests = count_requests();
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < LOOPS; i++)
        pw_server_stop(loops[i].server, PW_DRAIN);
    close(listener); /* or clients that wait to be accepted would wait without end */
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(clients[i], NULL);
    pthread_join(scraper, NULL);
    time_t left = time(NULL); /* no connection is open any more */
    for (loop *each = loops; each < loops + LOOPS; each++) {
        pthread_join(each->watcher, NULL);
        for (int i = 0; i < each->thread_count; i++)
            pthread_join(each->threads[i].id, NULL);
        loop_end(each);
        MUST(pw_server_requests(each->server) > 0);
    }
    MUST(time(NULL) - left < MINUTE_MS / 2000); /* or no thread has noticed the end of a drain */
    MUST(count_requests() == atomic_load(&served));
    MUST(count_requests() == scrape_requests());
    pw_exporter_free(exporter);
    close(pages);
    for (int i = 0; i < LOOPS; i++)
        pw_server_free(loops[i].server);
    pw_balance_free(balance);
    pw_metrics_free(metrics);
    close(logs[0]);
    close(logs[1]);
    printf("  %d requests, %d lent and %d dropped, %d by several threads, %d writes too late, "
           "%d abandoned, %d taken; %d answers, %d in pieces; %d threads started, %d named slow, "
           "%d incidents, "
           "%d pages\n",
           served, lent, dropped, together, too_late, abandoned, taken, answered, of_pieces, starts,
           slow, incidents, scrapes);
    /* Otherwise the program has not tried what it is for. */
    MUST(lent > 0 && together > 0 && too_late > 0 && abandoned > 0 && answered > 0);
    MUST(of_pieces > 0 && taken > 0 && starts > 0 && slow > 0 && lent == dropped && scrapes > 10);
    return 0;
}
