/* csrc/conn_keep.c: the memory of connections that wait, and its limit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "site.h"

enum { MANY = 40, LIMIT = 400000, HEAD = 60000 };

static test_site site;
static test_client clients[MANY];
static char large[1 << 20];

static void begin(void)
{
    pw_settings settings = site_settings();
    settings.head_memory_total = LIMIT;
    site_open(&site, &settings, AF_UNIX);
    for (int i = 0; i < MANY; i++)
        clients[i] = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->pool.held, 0);
}

static void end(void)
{
    for (int i = 0; i < MANY; i++)
        client_close(&clients[i]);
    CHECK_INT(site_serve(&site), 0);
    CHECK_INT(site.server->conn_count, 0);
    CHECK_INT(site.server->pool.held, 0);
    site_close(&site);
}

/* Sends a head of about 60,000 bytes. content_length NULL: without its end. */
static void send_large_head(test_client *client, const char *method, const char *content_length)
{
    test_text text = {NULL, 0, 0};
    text_add_string(&text, method);
    text_add_string(&text, " /large HTTP/1.1\r\nHost: a\r\nX: ");
    text_add(&text, large, HEAD);
    if (content_length != NULL) {
        text_add_string(&text, "\r\nContent-Length: ");
        text_add_string(&text, content_length);
        text_add_string(&text, "\r\n\r\n");
    }
    client_send(client, text.at, text.size);
    text_free(&text);
}

static bool is_refused(test_client *client)
{
    client_receive(client);
    return client->got.size > 12 && memcmp(client->got.at, "HTTP/1.1 503", 12) == 0;
}

static void an_incomplete_head_takes_little_more_memory_than_its_bytes(void)
{
    begin();
    SEND(&clients[0], "GET / HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->pool.held, PW_BUFFER_LEAST);
    for (size_t size = 16; size < HEAD; size += 500) {
        SEND(&clients[0], "X: ");
        client_send(&clients[0], large, 495);
        SEND(&clients[0], "\r\n");
        CHECK_INT(site_next(&site), SITE_WAITS);
        CHECK(site.server->pool.held <= PW_BUFFER_LEAST + 4 * (size + 500));
        if (size % 10000 == 16) /* also byte by byte */
            for (int i = 0; i < 20; i++) {
                SEND(&clients[0], "Y");
                CHECK_INT(site_next(&site), SITE_WAITS);
            }
    }
    SEND(&clients[0], "Z:z\r\nHost: a\r\n\r\n");
    CHECK_INT(site_serve(&site), 0); /* it has more fields than the limit */
    CHECK_INT(site.server->pool.held, 0);
    client_receive(&clients[0]);
    CHECK_HOLDS(&clients[0].got, "HTTP/1.1 431 ");
    end();
}

static void an_upload_keeps_its_head_and_not_its_content_twice(void)
{
    begin();
    SEND(&clients[0], "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 12000\r\n\r\n");
    client_send(&clients[0], large, 8000); /* content in the same bytes as the head */
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->pool.held, PW_BUFFER_LEAST);
    client_send(&clients[0], large, 4000);
    SEND(&clients[0], GET("/next"));
    test_seen *request = site_request(&site);
    CHECK_HOLDS(&request->line, "PATH_INFO: /a\n");
    CHECK_INT(request->content.size, 12000);
    request = site_see(&site, site_respond(&site, LITERAL("ok"), 0));
    CHECK_HOLDS(&request->line, "PATH_INFO: /next\n");
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    end();
}

/* Many clients send that much and wait. One that sent little came before them. */
static void check_many(const char *method, const char *content_length)
{
    begin();
    SEND(&clients[0], "GET /small HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    int refused = 0;
    for (int i = 1; i < MANY; i++) {
        send_large_head(&clients[i], method, content_length);
        CHECK_INT(site_next(&site), SITE_WAITS);
        CHECK(site.server->pool.held <= LIMIT);
        CHECK(site.server->pool.held >= LIMIT / 2 || i < LIMIT / HEAD);
    }
    for (int i = 1; i < MANY; i++)
        refused += is_refused(&clients[i]);
    CHECK(refused < MANY - LIMIT / 2 / HEAD && refused > MANY - LIMIT / HEAD - 2);
    CHECK(!is_refused(&clients[MANY - 1])); /* the one that has waited for the shortest time */
    SEND(&clients[0], "Host: a\r\n\r\n");
    CHECK_HOLDS(&site_request(&site)->line, "PATH_INFO: /small\n");
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    client_receive(&clients[0]);
    CHECK_TEXT(&clients[0].got, OK("ok", "2"));
    pw_incident incident;
    CHECK(pw_incident_take(site.server, &incident));
    CHECK_INT(incident.what, PW_INCIDENT_HEADS);
    CHECK(!pw_incident_take(site.server, &incident)); /* not one for each */
    end();
}

static void all_incomplete_heads_together_have_a_limit(void)
{
    check_many("GET", NULL);
}

static void heads_whose_content_does_not_arrive_have_a_limit_too(void)
{
    check_many("PUT", "5");
}

static void requests_that_wait_behind_a_response_have_a_limit_too(void)
{
    begin();
    const int count = MANY;
    for (int i = 0; i < count; i++) {
        SEND(&clients[i], GET("/first"));
        client_send(&clients[i], LITERAL("GET /second HTTP/1.1\r\nHost: a\r\nX: "));
        client_send(&clients[i], large, 15000);
        int64_t number = site_next(&site);
        REQUIRE(number >= 0);
        site_see(&site, number);
        number = site_respond(&site, large, sizeof large, 0); /* the client does not read it */
        CHECK_INT(number, SITE_WAITS);
        CHECK(site.server->pool.held <= LIMIT);
    }
    int ended = 0;
    for (int turns = 0; turns < 1000; turns++) {
        CHECK_INT(site_next(&site), SITE_WAITS);
        ended = 0;
        for (int i = 0; i < count; i++) {
            client_receive(&clients[i]);
            ended += clients[i].ended;
        }
    }
    for (int i = 0; i < count; i++) { /* all have the first response */
        ABOUT("client %d", i);
        CHECK_INT(clients[i].got.size,
                  sizeof HEAD_OK "Content-Length: 1048576\r\n\r\n" - 1 + sizeof large);
    }
    ABOUT("%d ended", ended);
    CHECK(ended >= count - LIMIT / 15000 && ended < count);
    end();
}

int main(void)
{
    memset(large, 'x', sizeof large);
    RUN(an_incomplete_head_takes_little_more_memory_than_its_bytes);
    RUN(an_upload_keeps_its_head_and_not_its_content_twice);
    RUN(all_incomplete_heads_together_have_a_limit);
    RUN(heads_whose_content_does_not_arrive_have_a_limit_too);
    RUN(requests_that_wait_behind_a_response_have_a_limit_too);
    return check_end();
}
