/* The part of Python: threads that serve, and threads of an application that write. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stress.h"

/* ------------------------------------------------------------------ loans */

/* What a response has lent to the core. */
struct loan {
    loan *next;
    int64_t exchange;
    char *pieces[PARTS]; /* owned */
    size_t size;         /* of each */
};

/* In Python's order: request.lends, then the loan, then the call into the core. */
static loan *lend(loop *self, pw_thread *thread, int64_t key, int count, size_t size)
{
    pw_request *request = pw_thread_request(thread);
    loan *own = calloc(1, sizeof *own);
    MUST(own != NULL);
    own->exchange = request->exchange;
    own->size = size;
    for (int i = 0; i < count; i++) {
        own->pieces[i] = malloc(size);
        MUST(own->pieces[i] != NULL);
        content_fill(own->pieces[i], key, (size_t)i * size, size);
    }
    request->lends = 1;
    pthread_mutex_lock(&self->lock);
    own->next = self->loans;
    self->loans = own;
    pthread_mutex_unlock(&self->lock);
    atomic_fetch_add(&lent, 1);
    return own;
}

static void drop(loop *self, int64_t exchange)
{
    pthread_mutex_lock(&self->lock);
    loan **at = &self->loans;
    while (*at != NULL && (*at)->exchange != exchange)
        at = &(*at)->next;
    loan *own = *at;
    MUST(own != NULL); /* the core names each exchange once */
    *at = own->next;
    pthread_mutex_unlock(&self->lock);
    for (int i = 0; i < PARTS && own->pieces[i] != NULL; i++) {
        memset(own->pieces[i], '!', own->size); /* a client would see it */
        free(own->pieces[i]);
    }
    free(own);
    atomic_fetch_add(&dropped, 1);
}

void take_news(loop *self, pw_thread *thread)
{
    pthread_mutex_lock(&self->taking_news);
    for (int64_t news; (news = pw_news(thread)) >= 0; pw_news_done(thread))
        if ((news & PW_NEWS_MASK) == PW_NEWS_SENT)
            drop(self, news >> PW_NEWS_SHIFT);
    pthread_mutex_unlock(&self->taking_news);
}

/* ------------------------------------------------------------------ responses */

/* X-Size: the size of the content. size -1: X-Pieces, the number of pieces of each writer, or -1. */
static int64_t make_head(char head[256], int64_t key, int client, int64_t size, int pieces)
{
    int at = snprintf(head, 256, "HTTP/1.1 200 OK\r\nX-Key: %lld\r\nX-Client: %d\r\n",
                      (long long)key, client);
    if (size >= 0)
        return at + snprintf(head + at, 64, "X-Size: %lld\r\n", (long long)size);
    return at + snprintf(head + at, 64, "X-Pieces: %d\r\n", pieces);
}

/* A current request. */
typedef struct {
    place *at;
    pw_thread *thread; /* borrowed */
    int64_t exchange, key;
    char path; /* the first letter */
    int client;
} job;

static int64_t respond_lent(const job *self, int32_t flags)
{
    char head[256];
    int64_t head_size = make_head(head, self->key, self->client, LARGE, 0);
    const loan *own = lend(self->at->of, self->thread, self->key, 1, LARGE);
    return pw_respond(self->thread, head, head_size, own->pieces[0], LARGE, flags);
}

static int64_t respond_small(const job *self, int32_t flags)
{
    char head[256], body[SMALL];
    int64_t head_size = make_head(head, self->key, self->client, SMALL, 0);
    content_fill(body, self->key, 0, SMALL);
    return pw_respond(self->thread, head, head_size, body, SMALL, flags);
}

/* A stream, or the items of a list, which are lent. */
static int64_t respond_in_parts(const job *self, bool framed, bool lends)
{
    static const char hints[] = "HTTP/1.1 103 Early Hints\r\n\r\n";
    char head[256];
    int64_t size = make_head(head, self->key, self->client, PARTS * PART, 0);
    if (framed)
        size += snprintf(head + size, 64, "Content-Length: %d\r\n", PARTS * PART);
    pw_send_interim(self->thread, hints, sizeof hints - 1);
    pw_client_gone(self->thread);
    sleep_us(1000);
    const loan *own = lends ? lend(self->at->of, self->thread, self->key, PARTS, PART) : NULL;
    pw_send_first(self->thread, self->exchange, head, size, framed ? PARTS * PART : -1, PW_ADD_DATE,
                  "", 0, 0);
    for (int i = 0; i < PARTS; i++) {
        char part[PART];
        if (own == NULL)
            content_fill(part, self->key, (size_t)i * PART, PART);
        pw_send_data(self->thread, self->exchange, own != NULL ? own->pieces[i] : part, PART,
                     own != NULL ? PW_FINISHED : 0);
        memset(part, '!', sizeof part);
    }
    MUST(!framed || pw_content_missing(self->thread) == 0 || pw_client_gone(self->thread));
    return pw_finish(self->thread, 0);
}

static int64_t echo_from_memory(const job *self)
{
    char head[256];
    const pw_request *request = pw_thread_request(self->thread);
    int64_t size = request->content_length;
    int64_t head_size = make_head(head, self->key, self->client, size, 0);
    return pw_respond(self->thread, head, head_size, request->content, size, 0);
}

static int64_t echo_in_parts(const job *self, int descriptor, int64_t left)
{
    char head[256];
    int64_t size = make_head(head, self->key, self->client, left, 0);
    pw_send_first(self->thread, self->exchange, head, size, -1, PW_ADD_SERVER, "", 0, 0);
    while (left > 0) {  /* chunked, so pw_send_file cannot send it */
        char part[512]; /* many small parts, and then a pause */
        if (left % 4096 < 512)
            sleep_us(1000);
        ssize_t got = pread(descriptor, part, sizeof part, POST_IN_FILE - left);
        MUST(got > 0);
        pw_send_data(self->thread, self->exchange, part, got, 0);
        left -= got;
    }
    pw_send_end(self->thread, 0);
    return pw_next(self->thread);
}

static int64_t echo_file(const job *self, int descriptor, int64_t content_size)
{
    char head[256];
    int64_t size = make_head(head, self->key, self->client, content_size, 0);
    size += snprintf(head + size, 64, "Content-Length: %lld\r\n", (long long)content_size);
    pw_send_first(self->thread, self->exchange, head, size, content_size, 0, "", 0, 0);
    pw_send_file(self->thread, descriptor, 0, content_size);
    pw_send_end(self->thread, 0);
    return pw_next(self->thread);
}

/* ------------------------------------------------------------------ several writers */

/* Sends pieces, and the head before the first piece of all. Returns the core's last outcome. */
static int32_t write_pieces(pw_thread *thread, int64_t exchange, int64_t key, int client,
                            int writer, int most)
{
    char head[256], piece[PIECE_MOST];
    int64_t head_size = make_head(head, key, client, -1, most < 0 ? -1 : PIECES);
    int32_t outcome = 0;
    for (int number = 0; outcome >= 0 && number != most; number++) {
        size_t size = piece_size(key, writer, number);
        piece_fill(piece, key, writer, number);
        outcome = pw_send_first(thread, exchange, head, head_size, -1, 0, piece, (int64_t)size, 0);
        memset(piece, '!', sizeof piece);
        if (number % 3 == 2 && pw_check_client(thread, exchange) == PW_OVER)
            outcome = PW_OVER;
    }
    return outcome;
}

static void *help(void *itself)
{
    helper *self = itself;
    pthread_mutex_lock(&self->lock);
    for (;;) {
        while (!self->busy && !self->over)
            pthread_cond_wait(&self->changed, &self->lock);
        if (self->over)
            break;
        pthread_mutex_unlock(&self->lock);
        MUST(pw_thread_exchange(self->thread) >= self->exchange);
        int32_t outcome = write_pieces(self->thread, self->exchange, self->key, self->client,
                                       self->writer, self->most);
        MUST(self->most >= 0 || outcome == PW_OVER || outcome == PW_GONE);
        if (outcome == PW_OVER)
            atomic_fetch_add(&too_late, 1);
        pthread_mutex_lock(&self->lock);
        self->busy = false;
        pthread_cond_broadcast(&self->changed);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

static void helper_wait(helper *self)
{
    pthread_mutex_lock(&self->lock);
    while (self->busy)
        pthread_cond_wait(&self->changed, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

static void helper_start(helper *self, const job *of, int most)
{
    helper_wait(self);
    pthread_mutex_lock(&self->lock);
    self->thread = of->thread;
    self->exchange = of->exchange;
    self->key = of->key;
    self->client = of->client;
    self->most = most;
    self->busy = true;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

static int64_t respond_together(const job *self)
{
    for (int i = 0; i < HELPERS; i++)
        helper_start(&self->at->helpers[i], self, PIECES);
    write_pieces(self->thread, self->exchange, self->key, self->client, HELPERS, PIECES);
    for (int i = 0; i < HELPERS; i++)
        helper_wait(&self->at->helpers[i]);
    atomic_fetch_add(&together, 1);
    return pw_finish(self->thread, 0);
}

/* The helper writes until the response is over. It may begin
 * before or after the thread's response. */
static int64_t respond_while_written(const job *self, int turn)
{
    helper_start(&self->at->helpers[turn % HELPERS], self, -1);
    if (turn % 4 < 3)
        sleep_us(turn % 4 * 500);
    int64_t number = respond_small(self, 0);
    return number == PW_STARTED ? pw_finish(self->thread, 0) : number;
}

/* ------------------------------------------------------------------ another protocol */

/* The application takes the connection, sends a response itself, and hands over one that is
 * ignored. */
static int64_t take_connection(const job *self, int turn)
{
    char head[512], content[PART], unread;
    int own = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool keeps = turn % 4 == 0;
    MUST(own >= 0 && pw_unread(self->thread, self->exchange, &unread, 1) == 0);
    if (turn % 3 == 0) /* it writes at the same time, and may begin a response before */
        helper_start(&self->at->helpers[turn % HELPERS], self, PIECES);
    int32_t outcome = pw_detach(self->thread, self->exchange, own, keeps);
    MUST(outcome == 0 || outcome == PW_GONE || (outcome == PW_REFUSED && turn % 3 == 0));
    if (outcome == 0) {
        int64_t size = make_head(head, self->key, self->client, PART, 0);
        size += snprintf(head + size, 64, "Content-Length: %d\r\n\r\n", PART);
        content_fill(content, self->key, 0, PART);
        send(own, head, (size_t)size, MSG_NOSIGNAL);
        send(own, content, PART, MSG_NOSIGNAL);
        atomic_fetch_add(&taken, 1);
        pw_client_gone(self->thread);
        if (turn % 2 == 0)
            sleep_us(3000);
    }
    close(own);
    if (turn % 5 == 0)
        pw_detached_end(self->thread, self->exchange);
    helper_wait(&self->at->helpers[turn % HELPERS]);
    if (outcome == 0 && turn % 2 == 0)
        return respond_lent(self, 0);
    return pw_finish(self->thread, outcome != 0);
}

/* ------------------------------------------------------------------ requests */

/* As if a signal handler had raised an exception between two calls. */
static int64_t abandon(const job *self, int turn)
{
    char head[256];
    int64_t size = make_head(head, self->key, self->client, PARTS * PART, 0);
    const loan *own = NULL;
    if (turn % 3 >= 1)
        own = lend(self->at->of, self->thread, self->key, PARTS, PART);
    if (turn % 3 == 2) {
        pw_send_first(self->thread, self->exchange, head, size, -1, 0, "", 0, 0);
        pw_send_data(self->thread, self->exchange, own->pieces[0], PART, PW_FINISHED);
    }
    atomic_fetch_add(&abandoned, 1);
    return pw_next(self->thread);
}

/* An upload is sent back to the client. The path or the turn decides about other requests. */
static int64_t serve_request(const job *self, int64_t number, int turn)
{
    const pw_request *request = pw_thread_request(self->thread);
    if ((number & PW_CONTENT) != 0 && request->content_file >= 0)
        return (turn % 2 == 0 ? echo_file : echo_in_parts)(self, request->content_file,
                                                           request->content_length);
    if ((number & PW_CONTENT) != 0) {
        if (turn % 3 == 0)
            sleep_us(3000);
        return echo_from_memory(self);
    }
    if (self->path == 'a')
        return abandon(self, turn);
    if (self->path == 'w')
        return take_connection(self, turn);
    if (self->path == 't')
        return respond_together(self);
    if (self->path == 'l')
        return respond_while_written(self, turn);
    switch (turn % 10) {
    case 3:
        sleep_us(5000); /* long enough for another thread to take the token */
        return respond_small(self, PW_ADD_DATE);
    case 5:
        sleep_us(5000);
        return respond_lent(self, 0);
    case 4:
    case 9:
        return respond_lent(self, 0);
    case 6:
        return respond_in_parts(self, false, false);
    case 7:
        return respond_in_parts(self, true, true);
    case 8:
        return respond_small(self, PW_RETURN);
    default:
        return respond_small(self, PW_ADD_DATE | PW_ADD_SERVER);
    }
}

/* The path of a request is "/", a letter and the number of the client. Returns letter * 256 + number.
 * The path is the last value of the block. If the core recognises the head, there is no block, and the
 * path is that of the entry. */
static int read_path(loop *self, pw_thread *thread, int64_t number)
{
    int entry = (int)(number >> PW_ENTRY_SHIFT) & PW_ENTRY_MASK;
    if ((number & PW_KIND) == PW_SAME)
        return self->templates[entry];
    const char *block = pw_thread_block(thread);
    size_t size = (size_t)pw_thread_request(thread)->block_size, at = size;
    while (block[at - 1] != '\0')
        at--;
    MUST(size - at >= 3 && size - at < 8 && block[at] == '/');
    int letter = block[at + 1], client = 0;
    for (at += 2; at < size; at++)
        client = client * 10 + block[at] - '0';
    int path = letter * 256 + client;
    if ((number & PW_KIND) == PW_STORE)
        self->templates[entry] = path;
    return path;
}

static void *serve(void *its_place)
{
    place *own = its_place;
    pw_thread *thread = pw_thread_new(own->of->server, own->number);
    MUST(thread != NULL);
    atomic_store(&own->thread, thread);
    int64_t number = pw_next(thread);
    for (int turn = 0; number != PW_STOP;) {
        if (number == PW_IDLE || (number & PW_NEWS) != 0)
            take_news(own->of, thread);
        if (number < 0) {
            number = pw_next(thread);
            continue;
        }
        atomic_fetch_add(&served, 1);
        int path = read_path(own->of, thread, number);
        int64_t exchange = pw_thread_request(thread)->exchange;
        job request = {
            .at = own,
            .thread = thread,
            .exchange = exchange,
            .key = exchange * LOOPS + own->of->number,
            .path = (char)(path / 256),
            .client = path % 256,
        };
        number = serve_request(&request, number, turn++);
    }
    atomic_store(&own->over, true);
    return NULL;
}

/* ------------------------------------------------------------------ the threads */

void loop_init(loop *self, int number)
{
    self->number = number;
    pthread_mutex_init(&self->lock, NULL);
    pthread_mutex_init(&self->taking_news, NULL);
}

static void helper_end(helper *self)
{
    helper_wait(self);
    pthread_mutex_lock(&self->lock);
    self->over = true;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
    pthread_join(self->id, NULL);
}

static void place_clear(place *self)
{
    for (int i = 0; i < HELPERS; i++)
        helper_end(&self->helpers[i]);
}

/* A place whose thread has ended, or that no thread has had. */
static place *find_place(loop *self)
{
    for (int i = 0; i < self->thread_count; i++) {
        place *old = &self->threads[i];
        if (!atomic_load(&old->over))
            continue;
        pthread_join(old->id, NULL);
        place_clear(old);
        pw_thread_free(old->thread);
        *old = (place){.number = i};
        return old;
    }
    MUST(self->thread_count < PLACES);
    place *new = &self->threads[self->thread_count];
    new->number = self->thread_count++;
    return new;
}

void start_thread(loop *self)
{
    place *started = find_place(self);
    started->of = self;
    for (int i = 0; i < HELPERS; i++) {
        helper *each = &started->helpers[i];
        each->writer = i;
        pthread_mutex_init(&each->lock, NULL);
        pthread_cond_init(&each->changed, NULL);
        MUST(pthread_create(&each->id, NULL, help, each) == 0);
    }
    MUST(pthread_create(&started->id, NULL, serve, started) == 0);
}

void loop_end(loop *self)
{
    for (int i = 0; i < self->thread_count; i++)
        place_clear(&self->threads[i]);
    take_news(self, self->threads[0].thread);
    MUST(self->loans == NULL);
    for (int i = 0; i < self->thread_count; i++)
        pw_thread_free(self->threads[i].thread);
}
