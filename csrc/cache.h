#ifndef PW_CACHE_H
#define PW_CACHE_H

#include "environ.h"

/*
 * Heads of recent requests, so that the same head again is recognised by one comparison. An entry
 * belongs to one connection and dies with it: what one client sent never reaches another.
 */
#define PW_CACHE_SIZE 512
#define PW_CACHE_HEAD_MOST 8192
#define PW_CACHE_REST_MS 1000 /* an entry used within this time is not taken away */

typedef struct {
    char *log; /* owned: log_size bytes, what the access log says of such a request; or NULL */
    size_t log_size;
    char *head;            /* owned: facts.size bytes */
    pw_template *template; /* owned: the values there; or NULL */
    pw_lines *lines;       /* owned: the lines there; or NULL */
    void *owner;           /* borrowed: the connection, or NULL: free */
    int64_t used;          /* ms */
    bool busy; /* a thread is at a request of its owner, and may look at the template yet */
    uint32_t misses;
    pw_facts facts;
} pw_entry;

typedef struct {
    pw_entry entries[PW_CACHE_SIZE];
    unsigned hand;
} pw_cache;

/* An entry for owner, or -1: all are in use. *evicted is the owner that lost it, or NULL. */
int pw_cache_take(pw_cache *cache, void *owner, int64_t now, void **evicted);
/* Keeps a head in an entry. False: too large, or out of memory. */
bool pw_cache_store(pw_cache *cache, int entry, const char *data, const pw_facts *facts);
void pw_cache_release(pw_cache *cache, int entry);
void pw_cache_free(pw_cache *cache);

#endif
