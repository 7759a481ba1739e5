/* A server whose threads and watcher are actors. */
#ifndef PW_STAGE_H
#define PW_STAGE_H

#include "cast.h"
#include "site.h"

extern test_site stage;
extern actor *watcher;
extern actor *serving[ACTORS_MOST]; /* by number; the first one has the thread of the site */

/* Uses the best poller, because its descriptor shows whether there
 * are events. No actor is in a call yet. */
void stage_open(pw_settings *settings);
/* Starts the watcher, and lets the first thread wait for a request. */
void stage_begin(void);
/* Stops the server, waits until all actors are AT_HOME, checks that
 * all have seen the stop, and frees all. */
void stage_close(void);

/* Starts a thread, as Python does at PW_WATCH_START. */
actor *stage_start(int number);
/* Lets the watcher ask for a thread, and starts it. */
actor *stage_start_wanted(int number);
/* Takes the news, as Python does before its next call. */
void stage_take_news(void);

/* Lets the thread answer its request. Returns its place after that. */
actor_place respond(actor *one, const char *body);
bool has_request(const actor *one);
/* The path of the thread's request. Valid until the next call. */
const char *path_of(const actor *one);
/* A client that has requested a path. */
test_client ask(const char *path);
/* Checks the end of the bytes that the client has received, and closes it. */
void check_answer(test_client *client, const char *end);
void ticks(int count);

#define CHECK_PATH(one, path) CHECK(strcmp(path_of(one), (path)) == 0)

#endif
