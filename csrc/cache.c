/* The cache of request heads: see cache.h. */
#include <string.h>

#include "alloc.h"
#include "cache.h"

#define PW_CACHE_TRIES 8

int pw_cache_take(pw_cache *cache, void *owner, int64_t now, void **evicted)
{
    *evicted = NULL;
    for (int i = 0; i < PW_CACHE_TRIES; i++) {
        unsigned at = cache->hand;
        cache->hand = (cache->hand + 1) % PW_CACHE_SIZE;
        pw_entry *entry = &cache->entries[at];
        if (entry->owner != NULL && (entry->busy || now - entry->used < PW_CACHE_REST_MS))
            continue;
        *evicted = entry->owner;
        pw_cache_release(cache, (int)at);
        entry->owner = owner;
        entry->used = now;
        return (int)at;
    }
    return -1;
}

bool pw_cache_store(pw_cache *cache, int at, const char *data, const pw_facts *facts)
{
    pw_entry *entry = &cache->entries[at];
    entry->misses = 0;
    pw_free(entry->log);
    entry->log = NULL;
    pw_free(entry->template);
    entry->template = NULL;
    pw_free(entry->lines);
    entry->lines = NULL;
    pw_free(entry->client);
    entry->client = NULL;
    if (facts->size > PW_CACHE_HEAD_MOST)
        return false;
    if (entry->head == NULL || entry->facts.size != facts->size) {
        pw_free(entry->head);
        entry->facts.size = 0;
        entry->head = pw_alloc(facts->size);
        if (entry->head == NULL)
            return false;
    }
    memcpy(entry->head, data, facts->size);
    entry->facts = *facts;
    return true;
}

void pw_cache_store_client(pw_cache *cache, int at, const pw_peer *client)
{
    pw_entry *entry = &cache->entries[at];
    entry->client = pw_alloc(sizeof *entry->client);
    if (entry->client != NULL)
        *entry->client = *client;
}

void pw_cache_release(pw_cache *cache, int at)
{
    pw_entry *entry = &cache->entries[at];
    pw_free(entry->log);
    pw_free(entry->template);
    pw_free(entry->lines);
    pw_free(entry->client);
    pw_free(entry->head);
    memset(entry, 0, sizeof *entry);
}

void pw_cache_free(pw_cache *cache)
{
    for (int i = 0; i < PW_CACHE_SIZE; i++)
        pw_cache_release(cache, i);
}
