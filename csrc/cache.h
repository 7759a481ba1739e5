#ifndef PW_CACHE_H
#define PW_CACHE_H

#include "environ.h"

/*
 * The cache of request heads: a repeated head is recognised by one comparison. An entry belongs to
 * one connection and is freed with it, so no other client can see it.
 */
#define PW_CACHE_SIZE 512
#define PW_CACHE_HEAD_MOST 8192
#define PW_CACHE_REST_MS 1000 /* an entry that was used within this time is kept */

typedef struct {
    char *log; /* owned: log_size bytes, the request's part of its access log line; or NULL */
    size_t log_size;
    char *head;            /* owned: facts.size bytes */
    pw_template *template; /* owned: the values of the head; or NULL */
    pw_lines *lines;       /* owned: the lines of the head; or NULL */
    pw_peer *client;       /* owned: the client of the head, as forwarded; or NULL */
    void *owner;           /* borrowed: the connection; NULL: the entry is free */
    int64_t used;          /* ms, of the last use */
    bool busy; /* a thread has a request of the owner, and may still read the template */
    uint32_t misses;
    pw_facts facts;
} pw_entry;

typedef struct {
    pw_entry entries[PW_CACHE_SIZE];
    unsigned hand;
} pw_cache;

/* An entry for the owner. -1: all are in use. *evicted is the owner
 * that lost the entry, or NULL. */
int pw_cache_take(pw_cache *cache, void *owner, int64_t now, void **evicted);
/* Stores a head in an entry. False: the head is too large, or out of memory. */
bool pw_cache_store(pw_cache *cache, int entry, const char *data, const pw_facts *facts);
/* Stores the client of that head. Without memory there is none. */
void pw_cache_store_client(pw_cache *cache, int entry, const pw_peer *client);
void pw_cache_release(pw_cache *cache, int entry);
void pw_cache_free(pw_cache *cache);

#endif
