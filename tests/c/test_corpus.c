/*
 * The wire corpus through a whole server, each case whole and in pieces. The requests and the
 * refusal must be those of the case, and the answers the same for all splits.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "corpus.h"
#include "outcome.h"
#include "site.h"

static const char *directory;
static test_site site;
static int null; /* for the access log */

/* The status of the refusal in the answers. 0: there is none. */
static int refusal_of(const test_text *record)
{
    static const char start[] = "HTTP/1.1 ";
    int status = 0;
    for (size_t i = 0; i + sizeof start + 3 < record->size; i++)
        if (memcmp(record->at + i, start, sizeof start - 1) == 0 &&
            memcmp(record->at + i + sizeof start - 1, "200", 3) != 0)
            status = atoi(record->at + i + sizeof start - 1);
    return status;
}

static bool is_as_named(const test_case *one, int served, int status)
{
    if (served == one->requests - 1 && status != 0)
        return corpus_allows(one->alternatives, status);
    if (served != one->requests)
        return false;
    if (strcmp(one->statuses, "-") == 0)
        return status == 0;
    /* If only a timeout would refuse it, the half-close ends it before. */
    return corpus_allows(one->statuses, status) ||
           (status == 0 && corpus_allows(one->statuses, 408));
}

static void check_case(const test_case *one)
{
    test_text whole = {NULL, 0, 0}, split = {NULL, 0, 0};
    size_t size = one->data.size;
    uint64_t random = cuts_hash(one->data.at, size);
    pw_settings settings = one->settings;
    site_log(&settings, null);
    site_open(&site, &settings, AF_UNIX);
    test_cuts cuts = cuts_none(size);
    int served = site_feed(&site, one->data.at, cuts.at, cuts.count, &whole);
    int status = refusal_of(&whole);
    ABOUT("%s: %d requests, status %d", one->name, served, status);
    CHECK(is_as_named(one, served, status));
    for (int i = 0; i < 4; i++) {
        site.server->watch.is_here = i >= 2;
        cuts = i == 0 ? cuts_all(size) : cuts_drawn(&random, size);
        site_feed(&site, one->data.at, cuts.at, cuts.count, &split);
        ABOUT("%s, split %d", one->name, i);
        CHECK(text_same(&whole, &split));
    }
    site_close(&site);
    text_free(&whole);
    text_free(&split);
}

static void each_case_has_its_requests_and_its_refusal_however_it_is_split(void)
{
    corpus_each(directory, check_case);
}

int main(int count, char **arguments)
{
    directory = count > 1 ? arguments[1] : "build/sanitize/corpus";
    null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    RUN(each_case_has_its_requests_and_its_refusal_however_it_is_split);
    return check_end();
}
