/*
 * Invariant: any bytes on a connection give the same requests (environ and content), the same
 * answers and the same refusal, no matter how they are split, also while half a request of another
 * connection is here. At the end nothing of the connection is left. Without memory there are fewer
 * requests.
 */
#include <fcntl.h>
#include <string.h>

#include "alloc.h"
#include "outcome.h"
#include "site.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static test_site site; /* one for all inputs: each connection is freed at its end */

static void open_site(void)
{
    pw_settings settings = site_settings();
    settings.max_head_size = 1500;
    settings.max_fields = 20;
    settings.max_body_size = 2000;
    settings.body_memory = 500;
    settings.body_memory_total = 800;
    settings.root_path = "/a";
    site_log(&settings, open("/dev/null", O_WRONLY | O_CLOEXEC));
    site_open(&site, &settings, AF_UNIX);
}

/* Adds the first head twice more, so that the core keeps and recognises heads. */
static void repeat_head(test_text *to, const char *data, size_t size)
{
    const char *end = memmem(data, size, LITERAL("\r\n\r\n"));
    text_clear(to);
    for (int i = 0; end != NULL && i < 2; i++)
        text_add(to, data, (size_t)(end + 4 - data));
    text_add(to, data, size);
}

/* Feeds the data while the n-th allocation and all later ones fail. */
static void feed_without_memory(const char *data, size_t size, long n)
{
    static test_text record;
    test_cuts cuts = cuts_all(size);
    pw_alloc_fail_after(n);
    site_feed(&site, data, cuts.at, cuts.count, &record);
    pw_alloc_fail_after(0);
}

/* Feeds the data while `other` waits for the end of its request,
 * and then completes that request. */
static void feed_beside(const char *data, const test_cuts *cuts, test_text *record)
{
    static const char part[] =
        "POST /other HTTP/1.1\r\nHost: other\r\nContent-Length: 5\r\n\r\nhel";
    static const char expected[] = "PATH_INFO: /other\nQUERY_STRING: \nREQUEST_METHOD: POST\n"
                                   "REQUEST_URI: /other\nSERVER_PROTOCOL: HTTP/1.1\n";
    test_client other = site_connect(&site);
    client_send(&other, LITERAL(part));
    REQUIRE(site_next(&site) == SITE_WAITS);
    site_feed(&site, data, cuts->at, cuts->count, record);
    client_send(&other, LITERAL("lo"));
    test_seen *request = site_see(&site, site_next(&site));
    REQUIRE(CHECK_TEXT(&request->line, expected));
    REQUIRE(CHECK_TEXT(&request->content, "hello"));
    REQUIRE(site_respond(&site, LITERAL("ok"), 0) == SITE_WAITS);
    client_close(&other);
    REQUIRE(site_next(&site) == SITE_WAITS);
    REQUIRE(site.server->conn_count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static test_text input, whole, split; /* never freed: later inputs use them again */
    if (site.server == NULL)
        open_site();
    const uint64_t choice = cuts_hash((const char *)bytes, size);
    uint64_t random = choice;
    text_clear(&input);
    if (choice % 2 == 0)
        repeat_head(&input, (const char *)bytes, size);
    else
        text_add(&input, (const char *)bytes, size);
    test_cuts cuts = cuts_none(input.size);
    site_feed(&site, input.at, cuts.at, cuts.count, &whole);
    /* With a watcher, responses to pipelined requests wait for each other. */
    site.server->watch.is_here = choice / 2 % 2 == 0;
    cuts = cuts_drawn(&random, input.size);
    if (choice / 4 % 4 == 0)
        feed_beside(input.at, &cuts, &split);
    else
        site_feed(&site, input.at, cuts.at, cuts.count, &split);
    REQUIRE(text_same(&whole, &split));
    if (choice / 16 % 16 == 0)
        feed_without_memory(input.at, input.size, 1 + (long)(choice / 256 % 12));
    REQUIRE(site.server->conn_count == 0);
    return 0;
}
