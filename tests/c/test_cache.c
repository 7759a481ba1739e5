/* csrc/cache.c: which connection has which entry, and for how long. */
#include <stdlib.h>

#include "alloc.h"
#include "cache.h"
#include "check.h"

static int owners[PW_CACHE_SIZE + 1]; /* their addresses represent connections */

static pw_cache *full_cache(int64_t now)
{
    pw_cache *cache = calloc(1, sizeof *cache);
    void *evicted;
    for (int i = 0; i < PW_CACHE_SIZE; i++) {
        CHECK_INT(pw_cache_take(cache, &owners[i], now, &evicted), i);
        CHECK(evicted == NULL);
    }
    return cache;
}

static void end(pw_cache *cache)
{
    pw_cache_free(cache);
    free(cache);
}

static void every_connection_gets_an_entry_while_some_are_free(void)
{
    pw_cache *cache = full_cache(0);
    for (int i = 0; i < PW_CACHE_SIZE; i++)
        CHECK(cache->entries[i].owner == &owners[i]);
    end(cache);
}

static void an_entry_in_use_is_not_taken_away(void)
{
    pw_cache *cache = full_cache(1000);
    void *evicted = cache;
    CHECK_INT(pw_cache_take(cache, &owners[PW_CACHE_SIZE], 1000 + PW_CACHE_REST_MS - 1, &evicted),
              -1);
    CHECK(evicted == NULL);
    end(cache);
}

static void an_unused_entry_goes_to_another_connection_and_its_old_one_is_named(void)
{
    pw_cache *cache = full_cache(1000);
    static const pw_facts facts = {.size = 5, .line_size = 2};
    void *evicted;
    CHECK(pw_cache_store(cache, 0, "hello", &facts));
    int entry = pw_cache_take(cache, &owners[PW_CACHE_SIZE], 1000 + PW_CACHE_REST_MS, &evicted);
    CHECK_INT(entry, 0);
    CHECK(evicted == &owners[0]);
    CHECK(cache->entries[0].owner == &owners[PW_CACHE_SIZE]);
    CHECK(cache->entries[0].head == NULL); /* the head of the other one is gone */
    end(cache);
}

static void a_head_is_copied_with_its_facts(void)
{
    pw_cache *cache = full_cache(0);
    static const pw_facts facts = {.size = 5, .line_size = 2, .content_length = 7};
    static const pw_facts longer = {.size = 6};
    char head[] = "hello!";
    CHECK(pw_cache_store(cache, 3, head, &facts));
    head[0] = 'j';
    CHECK_BYTES(cache->entries[3].head, cache->entries[3].facts.size, "hello");
    CHECK_INT(cache->entries[3].facts.content_length, 7);
    cache->entries[3].misses = 9;
    CHECK(pw_cache_store(cache, 3, head, &facts));
    CHECK_BYTES(cache->entries[3].head, cache->entries[3].facts.size, "jello");
    CHECK_INT(cache->entries[3].misses, 0);
    CHECK(pw_cache_store(cache, 3, head, &longer));
    CHECK_BYTES(cache->entries[3].head, cache->entries[3].facts.size, "jello!");
    end(cache);
}

static void a_head_that_is_too_large_or_finds_no_memory_is_not_kept(void)
{
    pw_cache *cache = full_cache(0);
    static char head[PW_CACHE_HEAD_MOST + 1];
    pw_facts facts = {.size = PW_CACHE_HEAD_MOST + 1};
    CHECK(!pw_cache_store(cache, 0, head, &facts));
    facts.size = PW_CACHE_HEAD_MOST;
    CHECK(pw_cache_store(cache, 0, head, &facts));
    facts.size = 5;
    pw_alloc_fail_after(1);
    CHECK(!pw_cache_store(cache, 0, head, &facts));
    pw_alloc_fail_after(0);
    CHECK(cache->entries[0].head == NULL);
    end(cache);
}

static void what_was_made_of_the_previous_head_is_freed_once(void)
{
    pw_cache *cache = full_cache(0);
    static char head[PW_CACHE_HEAD_MOST + 1];
    static const struct {
        uint32_t size;
        int fail_after;
    } cases[] = {{5, 0}, {PW_CACHE_HEAD_MOST + 1, 0}, {6, 1}};
    pw_entry *entry = &cache->entries[0];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("a head of %u bytes", cases[i].size);
        entry->log = pw_alloc(1);
        entry->template = pw_alloc(sizeof *entry->template);
        entry->lines = pw_alloc(sizeof *entry->lines);
        pw_cache_store_client(cache, 0, &(pw_peer){.address = "192.0.2.1", .port = "80"});
        REQUIRE(entry->client != NULL);
        CHECK(strcmp(entry->client->address, "192.0.2.1") == 0);
        pw_alloc_fail_after(cases[i].fail_after);
        CHECK_INT(pw_cache_store(cache, 0, head, &(pw_facts){.size = cases[i].size}), i == 0);
        pw_alloc_fail_after(0);
        CHECK(entry->log == NULL);
        CHECK(entry->template == NULL);
        CHECK(entry->lines == NULL);
        CHECK(entry->client == NULL);
    }
    pw_alloc_fail_after(1);
    pw_cache_store_client(cache, 0, &(pw_peer){.address = ""});
    pw_alloc_fail_after(0);
    CHECK(entry->client == NULL);
    ABOUT("%s", "");
    end(cache);
}

static void a_released_entry_is_free(void)
{
    pw_cache *cache = full_cache(0);
    void *evicted;
    pw_cache_release(cache, 7);
    cache->hand = 7;
    CHECK_INT(pw_cache_take(cache, &owners[PW_CACHE_SIZE], 0, &evicted), 7);
    CHECK(evicted == NULL);
    end(cache);
}

int main(void)
{
    RUN(every_connection_gets_an_entry_while_some_are_free);
    RUN(an_entry_in_use_is_not_taken_away);
    RUN(an_unused_entry_goes_to_another_connection_and_its_old_one_is_named);
    RUN(a_head_is_copied_with_its_facts);
    RUN(a_head_that_is_too_large_or_finds_no_memory_is_not_kept);
    RUN(what_was_made_of_the_previous_head_is_freed_once);
    RUN(a_released_entry_is_free);
    return check_end();
}
