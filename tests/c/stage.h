/* A server whose threads and watcher are actors. */
#ifndef PW_STAGE_H
#define PW_STAGE_H

#include "cast.h"
#include "site.h"

extern test_site stage;
extern actor *watcher;
extern actor *serving[ACTORS_MOST]; /* by number; the first has the thread of the site */

/* The best poller is taken, as its descriptor says whether it has something. Nobody is in a call yet. */
void stage_open(pw_settings *settings);
/* Lets the watcher begin, and the first thread wait for a request. */
void stage_begin(void);
/* Stops the server, brings everybody home, checks that all have been told, and frees all. */
void stage_close(void);

/* As Python does at PW_WATCH_START. */
actor *stage_start(int number);
/* Lets the watcher ask for a thread, which begins. */
actor *stage_start_wanted(int number);
/* As Python does before it calls again. */
void stage_take_news(void);

/* The thread answers its request; where it is then. */
actor_place respond(actor *one, const char *body);
bool has_request(const actor *one);
/* The path of the request that a thread is at; good until the next call. */
const char *path_of(const actor *one);
/* A client that has asked for a path. */
test_client ask(const char *path);
/* What the client has got ends so; it is closed. */
void check_answer(test_client *client, const char *end);
void ticks(int count);

#define CHECK_PATH(one, path) CHECK(strcmp(path_of(one), (path)) == 0)

#endif
