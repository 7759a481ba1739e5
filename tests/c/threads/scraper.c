/* A client of the exporter, which checks each page while the servers write to their meters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stress.h"

enum { PAGE_MOST = 1 << 16, LINES_MOST = 256, NAME_MOST = 100 };

typedef struct {
    char name[NAME_MOST]; /* with its labels */
    double value;
} sample;

typedef struct {
    sample samples[LINES_MOST];
    int count;
} samples;

static size_t fetch(char page[PAGE_MOST])
{
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    MUST(fd >= 0 &&
         connect(fd, (const struct sockaddr *)&exporter_address, exporter_address_size) == 0);
    MUST(write(fd, request, sizeof request - 1) == sizeof request - 1);
    size_t size = 0;
    for (ssize_t got; (got = read(fd, page + size, PAGE_MOST - 1 - size)) > 0;)
        size += (size_t)got;
    close(fd);
    page[size] = '\0';
    return size;
}

/* Reads the samples after the head of the response. */
static void parse(const char *page, samples *to)
{
    const char *line = strstr(page, "\r\n\r\n");
    MUST(strncmp(page, "HTTP/1.1 200 OK\r\n", 17) == 0 && line != NULL);
    to->count = 0;
    for (line += 4; *line != '\0'; line = strchr(line, '\n') + 1) {
        MUST(strchr(line, '\n') != NULL);
        if (*line == '#')
            continue;
        sample *one = &to->samples[to->count++];
        MUST(to->count < LINES_MOST);
        MUST(sscanf(line, "%99s %lf\n", one->name, &one->value) == 2);
        MUST(one->value >= 0);
    }
    MUST(to->count > 100);
}

static bool has_part(const sample *one, const char *part)
{
    return strstr(one->name, part) != NULL;
}

static double total(const samples *page, const char *name)
{
    double sum = 0;
    for (int i = 0; i < page->count; i++)
        if (strncmp(page->samples[i].name, name, strlen(name)) == 0)
            sum += page->samples[i].value;
    return sum;
}

/* Checks that no counter decreases, and that each histogram agrees with itself. */
static void check(const samples *page, const samples *before)
{
    for (int i = 0; i < page->count; i++) {
        const sample *one = &page->samples[i];
        bool is_counter = has_part(one, "_total") || has_part(one, "_bucket") ||
                          has_part(one, "_sum") || has_part(one, "_count");
        if (before->count > 0) {
            MUST(strcmp(one->name, before->samples[i].name) == 0);
            MUST(!is_counter || one->value >= before->samples[i].value);
        }
        if (has_part(one, "_bucket") && !has_part(one, "le=\"0.0005\""))
            MUST(one->value >= page->samples[i - 1].value);
        if (has_part(one, "+Inf"))
            MUST(page->samples[i + 2].value == one->value); /* behind _sum is _count */
    }
    MUST(total(page, "picowsgi_threads_busy") <=
         total(page, "picowsgi_threads{") + 2 * LOOPS * THREADS);
    MUST(total(page, "picowsgi_workers") == 1);
}

void *scrape(void *unused)
{
    static samples pages[2];
    static char page[PAGE_MOST];
    (void)unused;
    do {
        samples *now = &pages[scrapes % 2];
        fetch(page);
        parse(page, now);
        check(now, &pages[(scrapes + 1) % 2]);
        atomic_fetch_add(&scrapes, 1);
    } while (!atomic_load(&stopping));
    return NULL;
}

int64_t scrape_requests(void)
{
    static samples now;
    static char page[PAGE_MOST];
    fetch(page);
    parse(page, &now);
    MUST(total(&now, "picowsgi_requests_total") ==
         total(&now, "picowsgi_request_duration_seconds_count"));
    MUST(total(&now, "picowsgi_requests_total") == total(&now, "picowsgi_queue_seconds_count"));
    MUST(total(&now, "picowsgi_connections{") == 0);
    return (int64_t)total(&now, "picowsgi_requests_total");
}
