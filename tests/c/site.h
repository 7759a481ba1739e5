/*
 * A server and its clients in one thread. pw_poll_wait is wrapped by the linker (see the Makefile),
 * so that site_next comes back where pw_next would wait for events: then it is the clients' turn.
 */
#ifndef PW_SITE_H
#define PW_SITE_H

#include <sys/socket.h>

#include "check.h"
#include "state.h"

#define SITE_WAITS -9 /* beside PW_STOP: the server has nothing to do */

/* A request as Python would see it. */
typedef struct {
    int kind; /* PW_SAME ... */
    int entry;
    int64_t exchange;
    test_text line;   /* "KEY: value\n" for each value of the request line */
    test_text fields; /* the same for the others */
    test_text content;
    bool in_file; /* the content was in a temporary file */
} test_seen;

typedef struct {
    pw_server *server;
    pw_thread *thread;
    int listener;
    struct sockaddr_storage address;
    socklen_t address_size;
    test_seen request; /* the last one that site_see has decoded */
    struct {
        test_text line, fields;
        bool stored;
    } templates[PW_CACHE_SIZE];
    int64_t sent[16]; /* exchanges that PW_NEWS_SENT has named, the first of them */
    int sent_count;
} test_site;

/* Large limits, and timeouts that no test reaches. */
pw_settings site_settings(void);
/* An access log of all atoms in the order of their codes, a blank behind each. */
void site_log(pw_settings *settings, int descriptor);
/* Listens on an abstract unix socket, or on a port of 127.0.0.1 (AF_INET). */
void site_open(test_site *site, const pw_settings *settings, int family);
/* Also ends all that is left, and so finds leaks. */
void site_close(test_site *site);
/* pw_next, but SITE_WAITS instead of waiting. */
int64_t site_next(test_site *site);
/* Decodes into site->request what pw_next or pw_respond returned. */
test_seen *site_see(test_site *site, int64_t number);
/* Takes all news. */
void site_news(test_site *site);
/* site_next and site_see: a request must be there. */
test_seen *site_request(test_site *site);
/* pw_respond, but SITE_WAITS instead of waiting. */
int64_t site_answer(test_site *site, const char *head, const char *body, size_t size,
                    int32_t flags);
/* The same, with a head that says 200. */
int64_t site_respond(test_site *site, const char *body, size_t size, int32_t flags);
/* As Python does before it hands over what it keeps. */
void site_lend(test_site *site);
/* Parts of the response to the request that site_see has decoded last. */
int32_t site_send_head(test_site *site, const char *head, int64_t length);
int32_t site_send_first(test_site *site, const char *head, int64_t length, const char *data,
                        size_t size, int32_t flags);
int32_t site_send(test_site *site, const char *data, size_t size, int32_t flags);
/* Ends a response in parts; what site_respond returns. */
int64_t site_finish(test_site *site, bool cut);
/* site_next as long as requests come, each answered with its PATH_INFO; how many there were. */
int site_serve(test_site *site);
/* The same, and adds each request to record. */
int site_serve_recorded(test_site *site, test_text *record);
/*
 * A whole connection: the data in these pieces, then a half-close. To record goes all that was
 * seen of it on both sides and does not depend on the time: requests, then answers without dates
 * and `100 Continue`. Checks that nothing of it is left at the end; returns how many requests.
 */
int site_feed(test_site *site, const char *data, const size_t *ends, size_t count,
              test_text *record);
void site_sleep(int ms);

/* What clients send, and what they get. */
#define SEND(client, text) client_send((client), LITERAL(text))
#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define HEAD_OK "HTTP/1.1 200 OK\r\n"
#define OK(body, size) HEAD_OK "Content-Length: " size "\r\n\r\n" body

/* A client's side of one connection; never blocks. */
typedef struct {
    int fd;
    test_text got;
    bool ended; /* the server has closed, or reset it */
} test_client;

test_client site_connect(const test_site *site);
/* As much as the system takes; returns how much. After an error, all counts as taken. */
size_t client_send_some(test_client *client, const char *data, size_t size);
/* Requires that it takes all. */
void client_send(test_client *client, const char *data, size_t size);
void client_half_close(test_client *client);
/* Adds all that is there to client->got. */
void client_receive(test_client *client);
void client_close(test_client *client);
/* Closes with a reset (TCP only). */
void client_reset(test_client *client);

#endif
