/*
 * A server and its clients in one thread. The linker wraps pw_poll_wait (see tools/c.mk). So
 * site_next returns where pw_next would wait for events, and the test can act as the clients.
 */
#ifndef PW_SITE_H
#define PW_SITE_H

#include <sys/socket.h>

#include "check.h"
#include "state.h"

#define SITE_WAITS -9 /* besides PW_STOP: the server has nothing to do */

/* A request as Python would see it. */
typedef struct {
    int kind; /* PW_SAME ... */
    int entry;
    int64_t exchange;
    test_text line;   /* "KEY: value\n" for each value of the request line */
    test_text fields; /* the same for the other values */
    test_text content;
    bool in_file; /* the content was in a temporary file */
} test_seen;

typedef struct {
    pw_server *server;
    pw_thread *thread;
    int listener;
    struct sockaddr_storage address;
    socklen_t address_size;
    test_seen request; /* the request that site_see decoded last */
    struct {
        test_text line, fields;
        bool stored;
    } templates[PW_CACHE_SIZE];
    int64_t sent[16]; /* first exchanges that PW_NEWS_SENT has named */
    int sent_count;
} test_site;

/* Large limits, and timeouts that no test reaches. */
pw_settings site_settings(void);
/* An access log with all atoms in the order of their codes, and a blank after each. */
void site_log(pw_settings *settings, int descriptor);
/* Listens on an abstract unix socket, or on a port of 127.0.0.1 (AF_INET). */
void site_open(test_site *site, const pw_settings *settings, int family);
/* Also ends everything that is left, and so finds leaks. */
void site_close(test_site *site);
/* pw_next, but returns SITE_WAITS instead of waiting. */
int64_t site_next(test_site *site);
/* Decodes the result of pw_next or pw_respond into site->request. */
test_seen *site_see(test_site *site, int64_t number);
/* Takes all news. */
void site_news(test_site *site);
/* site_next and site_see. Requires that there is a request. */
test_seen *site_request(test_site *site);
/* pw_respond, but returns SITE_WAITS instead of waiting. */
int64_t site_answer(test_site *site, const char *head, const char *body, size_t size,
                    int32_t flags);
/* The same with a head of status 200. */
int64_t site_respond(test_site *site, const char *body, size_t size, int32_t flags);
/* Sets request.lends, as Python does before it passes bytes that it keeps. */
void site_lend(test_site *site);
/* Parts of the response to the request that site_see decoded last. */
int32_t site_send_head(test_site *site, const char *head, int64_t length);
int32_t site_send_first(test_site *site, const char *head, int64_t length, const char *data,
                        size_t size, int32_t flags);
int32_t site_send(test_site *site, const char *data, size_t size, int32_t flags);
/* Ends a response in parts. Returns what site_respond returns. */
int64_t site_finish(test_site *site, bool cut);
/* Serves requests while there are any, each with its PATH_INFO as
 * the response. Returns their number. */
int site_serve(test_site *site);
/* The same, and adds each request to the record. */
int site_serve_recorded(test_site *site, test_text *record);
/*
 * Feeds a whole connection: the data in these pieces, then a half-close. Adds to the record what
 * both sides saw and what does not depend on the time: the requests, then the answers without dates
 * and `100 Continue`. Checks that nothing of the connection is left. Returns the number of
 * requests.
 */
int site_feed(test_site *site, const char *data, const size_t *ends, size_t count,
              test_text *record);
void site_sleep(int ms);

/* Clients. */
#define SEND(client, text) client_send((client), LITERAL(text))
#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define HEAD_OK "HTTP/1.1 200 OK\r\n"
#define OK(body, size) HEAD_OK "Content-Length: " size "\r\n\r\n" body

/* The client's side of a connection. It never blocks. */
typedef struct {
    int fd;
    test_text got;
    bool ended; /* the server has closed or reset it */
} test_client;

test_client site_connect(const test_site *site);
/* Sends as much as the system takes, and returns the size. After
 * an error it returns the whole size. */
size_t client_send_some(test_client *client, const char *data, size_t size);
/* Requires that the system takes all bytes. */
void client_send(test_client *client, const char *data, size_t size);
void client_half_close(test_client *client);
/* Adds all bytes that have arrived to client->got. */
void client_receive(test_client *client);
void client_close(test_client *client);
/* Closes with a reset. Only for TCP. */
void client_reset(test_client *client);

#endif
