#include "site.h"

#include "audit.h"
#include "cast.h"
#include "locks.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cache.h"
#include "fields.h"
#include "poller.h"
#include "timer.h"

int __real_pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout);
int __wrap_pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout);

static jmp_buf idle; /* leaves pw_next */
static int due_in_a_row;

/* Whether the server waits only for the clock, and that time has come. */
static bool is_due(pw_server *server)
{
    pw_timers_tick(&server->timers);
    int64_t now = server->timers.now;
    return pw_timers_wait(&server->timers) == 0 ||
           (server->accept.resume_at != 0 && server->accept.resume_at <= now) ||
           (server->access.due != 0 && server->access.due <= now) ||
           (server->accept.aside && server->accept.aside_until <= now) ||
           (server->draining && server->drain_until <= now);
}

int __wrap_pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout)
{
    pw_server *server = (pw_server *)(void *)((char *)poll - offsetof(pw_server, poll));
    int count;
    if (cast_poll_wait(poll, events, timeout, &count))
        return count;
    count = __real_pw_poll_wait(poll, events, 0);
    due_in_a_row = count == 0 && is_due(server) ? due_in_a_row + 1 : 0;
    REQUIRE(due_in_a_row < 1000); /* or the server never handles what is due */
    if (count > 0 || due_in_a_row > 0 || server->spent.first != NULL)
        return count;
    REQUIRE(timeout != 0);   /* or the server never waits */
    server->event_count = 0; /* as after pw_poll_wait, which is called without the lock */
    server->polling = false;
    longjmp(idle, 1);
}

pw_settings site_settings(void)
{
    static const pw_network local[] = {{.kind = PW_NETWORK_UNIX},
                                       {PW_NETWORK_V4, 32, {127, 0, 0, 1}}};
    const int32_t hour = 3600 * 1000;
    return (pw_settings){
        .max_head_size = 65536,
        .head_memory_total = 32 << 20,
        .max_body_size = 1 << 20,
        .body_memory = 1 << 20,
        .body_memory_total = 64 << 20,
        .response_buffer = 1 << 20,
        .max_fields = 100,
        .max_connections = 100,
        .threads = 1,
        .timeout_head = hour,
        .timeout_body = hour,
        .timeout_write = hour,
        .timeout_keep_alive = hour,
        .timeout_graceful = hour,
        .access_file = -1,
        .access_program = "",
        .health_path = "",
        .live_path = "",
        .root_path = "",
        .trusted = local,
        .trusted_count = sizeof local / sizeof local[0],
        .temporary_directory = "/tmp",
        .poller = getenv("PICOWSGI_POLLER"),
    };
}

void site_log(pw_settings *settings, int descriptor)
{
    static test_text program;
    text_clear(&program);
    for (char code = PW_ATOM_ADDRESS; code <= PW_ATOM_DURATION; code++) {
        const char *name = code == PW_ATOM_FIELD            ? "user-agent"
                           : code == PW_ATOM_RESPONSE_FIELD ? "content-length"
                                                            : "";
        const char head[] = {code, 0, (char)strlen(name)};
        text_add(&program, head, sizeof head);
        text_add_string(&program, name);
        text_add(&program, LITERAL("\1\0\1 ")); /* PW_ATOM_LITERAL */
    }
    settings->access_file = descriptor;
    settings->access_program = program.at;
    settings->access_program_size = (int64_t)program.size;
}

void site_open(test_site *site, const pw_settings *settings, int family)
{
    memset(site, 0, sizeof *site);
    signal(SIGPIPE, SIG_IGN);
    site->server = pw_server_new(settings);
    REQUIRE(site->server != NULL);
    site->thread = pw_thread_new(site->server, 0);
    REQUIRE(site->thread != NULL);
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un local = {.sun_family =
                                    AF_UNIX}; /* without a path, so the system chooses a name */
    site->listener = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    REQUIRE(site->listener >= 0);
    REQUIRE(family == AF_INET
                ? bind(site->listener, (struct sockaddr *)&v4, sizeof v4) == 0
                : bind(site->listener, (struct sockaddr *)&local, sizeof local.sun_family) == 0);
    REQUIRE(listen(site->listener, 128) == 0);
    site->address_size = sizeof site->address;
    REQUIRE(getsockname(site->listener, (struct sockaddr *)&site->address, &site->address_size) ==
            0);
    REQUIRE(pw_server_listen(site->server, site->listener) == 0);
}

void site_close(test_site *site)
{
    REQUIRE(locks_held() == 0);
    pw_thread_free(site->thread);
    pw_server_free(site->server);
    close(site->listener);
    text_free(&site->request.line);
    text_free(&site->request.fields);
    text_free(&site->request.content);
    for (int i = 0; i < PW_CACHE_SIZE; i++) {
        text_free(&site->templates[i].line);
        text_free(&site->templates[i].fields);
    }
}

void site_sleep(int ms)
{
    struct timespec time = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&time, NULL);
}

/* ------------------------------------------------------------------ requests */

/* Called where the server would wait for events. */
static int64_t site_waits(test_site *site)
{
    REQUIRE(locks_held() == 0);
    audit_at_rest(site->server);
    return SITE_WAITS;
}

int64_t site_next(test_site *site)
{
    if (setjmp(idle) != 0)
        return site_waits(site);
    for (;;) {
        int64_t number = pw_next(site->thread);
        audit(site->server);
        if (number != PW_IDLE)
            return number;
        site_news(site);
    }
}

void site_news(test_site *site)
{
    for (int64_t news; (news = pw_news(site->thread)) >= 0; pw_news_done(site->thread)) {
        int64_t number = news >> PW_NEWS_SHIFT;
        if ((news & PW_NEWS_MASK) == PW_NEWS_ENTRY) {
            REQUIRE(number < PW_CACHE_SIZE);
            site->templates[number].stored = false;
        } else if (site->sent_count < 16) {
            site->sent[site->sent_count++] = number;
        }
    }
}

static void text_set(test_text *to, const test_text *from)
{
    text_clear(to);
    text_add(to, from->at, from->size);
}

/* Adds a value and its key as a line to the text of its kind. */
static void site_see_value(test_seen *request, uint8_t number, const char *value, size_t size)
{
    const char *key = pw_key(number);
    bool of_line = number <= PW_KEY_PATH;
    test_text *to = of_line ? &request->line : &request->fields;
    if (number == PW_OTHER_NAME) {
        const char *end = memchr(value, 1, size);
        REQUIRE(end != NULL);
        text_add(to, value, (size_t)(end - value));
        size -= (size_t)(end + 1 - value);
        value = end + 1;
    } else {
        REQUIRE(key != NULL);
        text_add_string(to, key);
    }
    text_add(to, LITERAL(": "));
    for (size_t i = 0; i < size; i++) /* keep it on one line */
        text_add(to, value[i] == '\n' ? "\\n" : value + i, value[i] == '\n' ? 2 : 1);
    text_add(to, LITERAL("\n"));
}

static void site_see_block(test_site *site, bool whole, size_t size)
{
    REQUIRE((int64_t)size <= pw_thread_block_size(site->thread));
    REQUIRE(size > 0);
    const char *numbers = pw_thread_block(site->thread), *all_end = numbers + size;
    const char *numbers_end = memchr(numbers, '\0', size);
    REQUIRE(numbers_end != NULL && numbers_end > numbers);
    size_t values = (size_t)(numbers_end - numbers);
    /* The block of a whole head leaves out the usual values. */
    if (whole && memchr(numbers, PW_KEY_METHOD, values) == NULL)
        site_see_value(&site->request, PW_KEY_METHOD, LITERAL("GET"));
    if (whole && memchr(numbers, PW_KEY_QUERY, values) == NULL)
        site_see_value(&site->request, PW_KEY_QUERY, LITERAL(""));
    if (whole && memchr(numbers, PW_KEY_PROTOCOL, values) == NULL)
        site_see_value(&site->request, PW_KEY_PROTOCOL, LITERAL("HTTP/1.1"));
    const char *at = numbers + values + 1;
    for (size_t i = 0; i + 1 < values; i++) {
        const char *end = memchr(at, '\0', (size_t)(all_end - at));
        REQUIRE(end != NULL);
        site_see_value(&site->request, (uint8_t)numbers[i], at, (size_t)(end - at));
        at = end + 1;
    }
    REQUIRE((uint8_t)numbers[values - 1] == PW_KEY_PATH);
    site_see_value(&site->request, PW_KEY_PATH, at, (size_t)(all_end - at));
}

/* Whether the text has a line that begins with `start`. */
static bool has_line(const test_text *text, const char *start, size_t size)
{
    for (size_t at = 0; at < text->size; at++)
        if ((at == 0 || text->at[at - 1] == '\n') && text->size - at >= size &&
            memcmp(text->at + at, start, size) == 0)
            return true;
    return false;
}

/* Adds the lines of a template for whose keys the block has no values. */
static void add_missing(test_text *to, const test_text *template)
{
    test_text given = {NULL, 0, 0};
    text_add(&given, to->at, to->size);
    for (size_t at = 0, end; at < template->size; at = end) {
        const char *line = template->at + at, *colon = memchr(line, ':', template->size - at);
        const char *newline = memchr(line, '\n', template->size - at);
        REQUIRE(colon != NULL && newline != NULL);
        end = (size_t)(newline + 1 - template->at);
        if (!has_line(&given, line, (size_t)(colon + 1 - line)))
            text_add(to, line, end - at);
    }
    text_free(&given);
}

static int compare_lines(const void *a, const void *b)
{
    const test_text *one = a, *other = b;
    size_t size = one->size < other->size ? one->size : other->size;
    int order = memcmp(one->at, other->at, size);
    return order != 0 ? order : (one->size > other->size) - (one->size < other->size);
}

/* Sorts the lines, because the order of the values does not matter. */
static void sort_lines(test_text *text)
{
    enum { MOST = 200 };
    test_text lines[MOST], sorted = {NULL, 0, 0};
    size_t count = 0;
    for (size_t at = 0; at < text->size; at += lines[count++].size) {
        REQUIRE(count < MOST);
        char *newline = memchr(text->at + at, '\n', text->size - at);
        REQUIRE(newline != NULL);
        lines[count] = (test_text){text->at + at, (size_t)(newline + 1 - text->at) - at, 0};
    }
    qsort(lines, count, sizeof lines[0], compare_lines);
    for (size_t i = 0; i < count; i++)
        text_add(&sorted, lines[i].at, lines[i].size);
    text_free(text);
    *text = sorted;
}

static void site_see_content(test_seen *request, const pw_request *from)
{
    request->in_file = from->content_file >= 0;
    if (from->content != NULL)
        text_add(&request->content, from->content, (size_t)from->content_length);
    if (from->content_file < 0)
        return;
    char part[4096];
    off_t at = 0;
    for (ssize_t size; (size = pread(from->content_file, part, sizeof part, at)) > 0; at += size)
        text_add(&request->content, part, (size_t)size);
}

test_seen *site_see(test_site *site, int64_t number)
{
    test_seen *request = &site->request;
    REQUIRE(number >= 0);
    if (number & PW_NEWS)
        site_news(site);
    text_clear(&request->line);
    text_clear(&request->fields);
    text_clear(&request->content);
    request->kind = (int)(number & PW_KIND);
    request->entry = (int)(number >> PW_ENTRY_SHIFT & PW_ENTRY_MASK);
    request->exchange = pw_thread_request(site->thread)->exchange;
    if (request->kind != PW_NEW)
        REQUIRE(request->entry < PW_CACHE_SIZE);
    if (request->kind != PW_SAME)
        site_see_block(site, request->kind == PW_NEW || request->kind == PW_STORE,
                       (size_t)pw_thread_request(site->thread)->block_size);
    if (request->kind == PW_SAME || request->kind == PW_CHANGED) {
        REQUIRE(site->templates[request->entry].stored);
        add_missing(&request->fields, &site->templates[request->entry].fields);
        add_missing(&request->line, &site->templates[request->entry].line);
    }
    sort_lines(&request->line);
    sort_lines(&request->fields);
    if (request->kind == PW_STORE) {
        text_set(&site->templates[request->entry].line, &request->line);
        text_set(&site->templates[request->entry].fields, &request->fields);
        site->templates[request->entry].stored = true;
    }
    request->in_file = false;
    if (number & PW_CONTENT)
        site_see_content(request, pw_thread_request(site->thread));
    return request;
}

test_seen *site_request(test_site *site)
{
    return site_see(site, site_next(site));
}

int64_t site_answer(test_site *site, const char *head, const char *body, size_t size, int32_t flags)
{
    if (setjmp(idle) != 0)
        return site_waits(site);
    int64_t number =
        pw_respond(site->thread, head, (int64_t)strlen(head), body, (int64_t)size, flags);
    audit(site->server);
    return number == PW_IDLE ? site_next(site) : number;
}

int64_t site_respond(test_site *site, const char *body, size_t size, int32_t flags)
{
    return site_answer(site, HEAD_OK, body, size, flags);
}

void site_lend(test_site *site)
{
    pw_thread_request(site->thread)->lends = 1;
}

int32_t site_send(test_site *site, const char *data, size_t size, int32_t flags)
{
    return pw_send_data(site->thread, site->request.exchange, data, (int64_t)size, flags);
}

int32_t site_send_first(test_site *site, const char *head, int64_t length, const char *data,
                        size_t size, int32_t flags)
{
    return pw_send_first(site->thread, site->request.exchange, head, (int64_t)strlen(head), length,
                         0, data, (int64_t)size, flags);
}

int32_t site_send_head(test_site *site, const char *head, int64_t length)
{
    return site_send_first(site, head, length, "", 0, 0);
}

int64_t site_finish(test_site *site, bool cut)
{
    if (setjmp(idle) != 0)
        return site_waits(site);
    int64_t number = pw_finish(site->thread, cut);
    audit(site->server);
    return number == PW_IDLE ? site_next(site) : number;
}

static void record_request(test_text *record, const test_seen *request)
{
    char line[64];
    snprintf(line, sizeof line, "content of %zu bytes\n", request->content.size);
    text_add(record, request->line.at, request->line.size);
    text_add(record, request->fields.at, request->fields.size);
    text_add_string(record, line);
    text_add(record, request->content.at, request->content.size);
}

int site_serve_recorded(test_site *site, test_text *record)
{
    int count = 0;
    for (int64_t number = site_next(site); number >= 0; count++) {
        test_seen *request = site_see(site, number);
        if (record != NULL)
            record_request(record, request);
        const char *path = memmem(request->line.at, request->line.size, LITERAL("PATH_INFO: "));
        REQUIRE(path != NULL);
        path += sizeof "PATH_INFO: " - 1;
        const char *end = request->line.at + request->line.size;
        size_t size = (size_t)((char *)memchr(path, '\n', (size_t)(end - path)) - path);
        number = site_respond(site, path, size, 0);
    }
    site_news(site);
    return count;
}

int site_serve(test_site *site)
{
    return site_serve_recorded(site, NULL);
}

/* Copies the answers to the record, without the parts that depend on the time. */
static void record_answers(test_text *record, const test_text *answers)
{
    static const char date[] = "\r\nDate: ", interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
    for (size_t i = 0; i < answers->size;) {
        size_t left = answers->size - i;
        const char *at = answers->at + i;
        if (left >= sizeof interim - 1 && memcmp(at, interim, sizeof interim - 1) == 0) {
            i += sizeof interim - 1;
        } else if (left >= 37 && memcmp(at, date, sizeof date - 1) == 0) {
            i += sizeof "\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT" - 1;
        } else {
            text_add(record, at, 1);
            i++;
        }
    }
}

int site_feed(test_site *site, const char *data, const size_t *ends, size_t count,
              test_text *record)
{
    const int before = site->server->conn_count;
    test_client client = site_connect(site);
    int served = 0;
    text_clear(record);
    for (size_t i = 0, at = 0; i < count; i++) {
        while (at < ends[i]) {
            at += client_send_some(&client, data + at, ends[i] - at);
            served += site_serve_recorded(site, record);
            client_receive(&client);
        }
    }
    client_half_close(&client);
    served += site_serve_recorded(site, record);
    client_receive(&client);
    served += site_serve_recorded(site, record);
    client_receive(&client);
    record_answers(record, &client.got);
    REQUIRE(client.ended);
    REQUIRE(site->server->conn_count == before);
    client_close(&client);
    return served;
}

/* ------------------------------------------------------------------ clients */

test_client site_connect(const test_site *site)
{
    test_client client = {.fd = socket(site->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    REQUIRE(client.fd >= 0);
    REQUIRE(connect(client.fd, (const struct sockaddr *)&site->address, site->address_size) == 0);
    fcntl(client.fd, F_SETFL, O_NONBLOCK);
    return client;
}

size_t client_send_some(test_client *client, const char *data, size_t size)
{
    ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN ? 0 : size; /* client_receive will notice the end */
    return (size_t)sent;
}

void client_send(test_client *client, const char *data, size_t size)
{
    REQUIRE(client_send_some(client, data, size) == size);
}

void client_half_close(test_client *client)
{
    shutdown(client->fd, SHUT_WR);
}

void client_receive(test_client *client)
{
    char part[16384];
    ssize_t size;
    while ((size = recv(client->fd, part, sizeof part, 0)) > 0)
        text_add(&client->got, part, (size_t)size);
    client->ended |= size == 0 || errno != EAGAIN;
}

void client_close(test_client *client)
{
    close(client->fd);
    text_free(&client->got);
}

void client_reset(test_client *client)
{
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    client_close(client);
}
