#include "stage.h"

#include <stdio.h>
#include <string.h>

#include "audit.h"

enum { ROUNDS = 10 };

test_site stage;
actor *watcher;
actor *serving[ACTORS_MOST];

void stage_open(pw_settings *settings)
{
    settings->poller = NULL;
    cast_begin();
    site_open(&stage, settings, AF_UNIX);
    memset(serving, 0, sizeof serving);
    watcher = cast_add(stage.server, NULL, "watcher");
    serving[0] = cast_add(stage.server, stage.thread, "first");
}

void stage_begin(void)
{
    actor_call(watcher, call_watch);
    actor_call(serving[0], call_next);
}

void stage_take_news(void)
{
    while (pw_news(stage.thread) >= 0)
        pw_news_done(stage.thread);
}

static void take_incidents(void)
{
    for (pw_incident incident; pw_incident_take(stage.server, &incident);)
        continue;
}

static void watch_on(void)
{
    if (watcher->at != AT_HOME || watcher->result == PW_WATCH_STOP)
        return;
    if (watcher->result == PW_WATCH_START)
        pw_watch_failed(stage.server);
    take_incidents();
    actor_call(watcher, call_watch);
}

static void bring_home(actor *one)
{
    for (int rounds = 0; rounds < ROUNDS && one->result != PW_STOP; rounds++) {
        stage_take_news();
        watch_on();
        if (one->at == AT_HOME)
            actor_call(one, call_next);
        if (one->at != AT_HOME)
            cast_tick(watcher);
    }
    CHECK_INT(one->at, AT_HOME);
    CHECK_INT(one->result, PW_STOP);
}

void stage_close(void)
{
    pw_server_stop(stage.server, PW_END);
    cast_settle();
    for (int i = 0; i < ACTORS_MOST; i++)
        if (serving[i] != NULL)
            bring_home(serving[i]);
    for (int rounds = 0; rounds < ROUNDS; rounds++) {
        watch_on();
        cast_settle();
    }
    CHECK_INT(watcher->at, AT_HOME);
    audit(stage.server);
    for (int i = 1; i < ACTORS_MOST; i++)
        if (serving[i] != NULL)
            pw_thread_free(serving[i]->thread);
    cast_end();
    site_close(&stage);
}

actor *stage_start(int number)
{
    pw_thread *thread = pw_thread_new(stage.server, number);
    REQUIRE(thread != NULL);
    serving[number] = cast_add(stage.server, thread, "one more");
    return serving[number];
}

actor *stage_start_wanted(int number)
{
    for (int i = 0; watcher->at != AT_HOME && i < ROUNDS; i++)
        ticks(1);
    REQUIRE(watcher->at == AT_HOME && watcher->result == PW_WATCH_START);
    actor *one = stage_start(number);
    actor_call(one, call_next);
    actor_call(watcher, call_watch);
    cast_settle();
    audit(stage.server);
    return one;
}

actor_place respond(actor *one, const char *body)
{
    one->head = HEAD_OK;
    one->body = body;
    one->flags = 0;
    actor_place place = actor_call(one, call_respond);
    audit(stage.server);
    return place;
}

bool has_request(const actor *one)
{
    return one != NULL && one->at == AT_HOME && one->thread->conn != NULL;
}

const char *path_of(const actor *one)
{
    static char path[64];
    REQUIRE(has_request(one));
    const pw_thread *thread = one->thread;
    const char *at = memchr(thread->line, ' ', thread->line_size);
    REQUIRE(at != NULL);
    const char *blank = memchr(at + 1, ' ', thread->line_size - (size_t)(at + 1 - thread->line));
    REQUIRE(blank != NULL && blank - at < (int)sizeof path);
    snprintf(path, sizeof path, "%.*s", (int)(blank - at - 1), at + 1);
    return path;
}

test_client ask(const char *path)
{
    char request[100];
    test_client client = site_connect(&stage);
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path);
    client_send(&client, request, (size_t)size);
    return client;
}

void check_answer(test_client *client, const char *end)
{
    size_t size = strlen(end);
    client_receive(client);
    CHECK(client->got.size >= size &&
          memcmp(client->got.at + client->got.size - size, end, size) == 0);
    client_close(client);
}

void ticks(int count)
{
    for (int i = 0; i < count; i++) {
        cast_tick(watcher);
        audit(stage.server);
    }
}
