#include "outcome.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "chunked.h"
#include "environ.h"
#include "fields.h"
#include "forwarded.h"
#include "head.h"
#include "host.h"
#include "lines.h"

#define CUTS_MOST (sizeof((test_cuts *)NULL)->at / sizeof(size_t))

/* ------------------------------------------------------------------ cuts */

test_cuts cuts_none(size_t size)
{
    return (test_cuts){.at = {size}, .count = 1};
}

test_cuts cuts_one(size_t at, size_t size)
{
    return (test_cuts){.at = {at, size}, .count = 2};
}

test_cuts cuts_all(size_t size)
{
    test_cuts cuts = {.count = 0};
    size_t step = size / CUTS_MOST + 1;
    for (size_t at = step; at < size; at += step)
        cuts.at[cuts.count++] = at;
    cuts.at[cuts.count++] = size;
    return cuts;
}

/* FNV-1a */
uint64_t cuts_hash(const char *data, size_t size)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)data[i]) * 1099511628211u;
    return hash;
}

static uint64_t next_random(uint64_t *random)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return *random >> 33;
}

static int compare_sizes(const void *a, const void *b)
{
    size_t left = *(const size_t *)a, right = *(const size_t *)b;
    return (left > right) - (left < right);
}

test_cuts cuts_drawn(uint64_t *random, size_t size)
{
    test_cuts cuts = {.count = 0};
    if (next_random(random) % 16 == 0)
        return cuts_all(size);
    for (uint64_t left = 1 + next_random(random) % 6; left > 0 && size > 0; left--)
        cuts.at[cuts.count++] = (size_t)next_random(random) % size;
    qsort(cuts.at, cuts.count, sizeof cuts.at[0], compare_sizes);
    cuts.at[cuts.count++] = size;
    return cuts;
}

/* ------------------------------------------------------------------ heads */

static char *exact_copy(const char *data, size_t size)
{
    char *copy = malloc(size > 0 ? size : 1);
    REQUIRE(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

__attribute__((format(printf, 2, 3))) static void add(test_text *to, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    text_add(to, line, (size_t)size);
}

static void add_span(test_text *to, const char *name, pw_span span, const char *data, size_t size)
{
    if (span.at == NULL) {
        add(to, "%s none\n", name);
        return;
    }
    size_t at = (size_t)(span.at - data);
    if (span.at < data || at > size) { /* the path "/", which is not in the data */
        REQUIRE(span.size == 1 && span.at[0] == '/' && strcmp(name, "path") == 0);
        add(to, "%s /\n", name);
        return;
    }
    REQUIRE(span.size <= size - at);
    add(to, "%s %zu+%zu\n", name, at, span.size);
}

/* Each line ends with CRLF. There is no other CR or LF, and no control
 * byte but HTAB. The last line is empty. */
static void require_clean_lines(const char *data, size_t size)
{
    REQUIRE(size >= 4 && memcmp(data + size - 4, "\r\n\r\n", 4) == 0);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c == '\n')
            REQUIRE(i > 0 && data[i - 1] == '\r');
        else if (c == '\r')
            REQUIRE(data[i + 1] == '\n');
        else
            REQUIRE(c == '\t' || (c >= ' ' && c != 127));
    }
}

static void add_head(test_text *to, const pw_head *head, const char *data, size_t size)
{
    const pw_facts *facts = &head->facts;
    REQUIRE(facts->size <= size);
    require_clean_lines(data, facts->size);
    REQUIRE(!facts->chunked || facts->content_length < 0);
    add(to, "done %u line %u length %lld minor %d %d%d%d%d\n", facts->size, facts->line_size,
        (long long)facts->content_length, facts->minor, facts->is_head, facts->keep_alive,
        facts->chunked, facts->expect_continue);
    add_span(to, "method", head->method, data, facts->size);
    add_span(to, "target", head->target, data, facts->size);
    add_span(to, "path", head->path, data, facts->size);
    add_span(to, "query", head->query, data, facts->size);
    add_span(to, "authority", head->authority, data, facts->size);
    for (size_t i = 0; i < head->field_count; i++) {
        REQUIRE(pw_is_token(head->fields[i].name.at, head->fields[i].name.size));
        add(to, "number %d\n", head->fields[i].number);
        add_span(to, "name", head->fields[i].name, data, facts->size);
        add_span(to, "value", head->fields[i].value, data, facts->size);
    }
}

/* Makes the block of this head in memory of exactly the size that it may need. */
static void require_block_fits(const pw_limits *limits, const pw_head *head,
                               const pw_forwarded *forwarded, const char *data)
{
    static const pw_peer peer = {"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "65535"};
    size_t most = pw_block_most(limits);
    pw_block block = {.at = malloc(most)};
    REQUIRE(block.at != NULL);
    pw_block_make(&block, head, &peer, NULL, forwarded, INT64_MAX);
    REQUIRE(block.size <= most);
    pw_lines *lines = pw_lines_new(head, data);
    size_t line_size = head->facts.line_size, fields_size = head->facts.size - line_size;
    pw_changes changes;
    REQUIRE(pw_lines_follow(lines, data + line_size, data + line_size, fields_size, &changes) ==
            fields_size);
    REQUIRE(changes.count == 0);
    pw_free(lines);
    pw_block_make_line(&block, head, false, &changes);
    REQUIRE(block.size <= most);
    pw_template *template = pw_template_new(head, forwarded, data);
    if (template != NULL) {
        REQUIRE(pw_block_make_changes(&block, head, forwarded, INT64_MAX, template, data));
        REQUIRE(block.size <= most);
    }
    pw_free(template);
    free(block.at);
}

static void require_text(const char *text, size_t size, const char *allowed)
{
    for (size_t i = 0; i < size; i++)
        REQUIRE(text[i] > ' ' && text[i] < 127 &&
                (allowed == NULL || strchr(allowed, text[i]) != NULL));
}

/* Checks the values that a trusted peer forwards, and adds them. */
static void add_forwarded(test_text *to, const pw_limits *limits, const pw_head *head,
                          const char *data)
{
    static const pw_network networks[] = {{PW_NETWORK_V4, 8, {127}}, {PW_NETWORK_V6, 0, {0}}};
    static const pw_trust trust = {networks, sizeof networks / sizeof networks[0]};
    pw_forwarded values;
    if (!head->facts.forwarded) {
        require_block_fits(limits, head, NULL, data);
        return;
    }
    memset(&values, 'x', sizeof values);
    if (!pw_forwarded_read(&trust, head, &values)) {
        text_add(to, LITERAL("forwarded malformed\n"));
        return;
    }
    add(to, "forwarded %d", values.set);
    if (values.set & PW_SET_CLIENT) {
        require_text(values.client.address, strlen(values.client.address), "0123456789abcdef.:");
        require_text(values.client.port, strlen(values.client.port), "0123456789");
        add(to, " client %s %s", values.client.address, values.client.port);
    }
    if (values.set & PW_SET_HOST) {
        REQUIRE(pw_is_host((pw_span){values.host, values.host_size}, false));
        text_add(to, LITERAL(" host "));
        text_add(to, values.host, values.host_size);
        REQUIRE(values.name_size > 0 && values.name_size <= values.host_size);
    }
    REQUIRE((values.set & PW_SET_NAME) == 0 || (values.set & PW_SET_HOST) != 0);
    REQUIRE((values.set & PW_SET_HTTPS) == 0 || (values.set & PW_SET_SCHEME) != 0);
    if (values.set & PW_SET_PORT) {
        require_text(values.port, strlen(values.port), "0123456789");
        add(to, " port %s", values.port);
    }
    if (values.set & PW_SET_PREFIX) {
        require_text(values.prefix.at, values.prefix.size, NULL);
        REQUIRE(values.prefix.size == 0 || values.prefix.at[0] == '/');
        text_add(to, LITERAL(" prefix "));
        text_add(to, values.prefix.at, values.prefix.size);
    }
    text_add(to, LITERAL("\n"));
    require_block_fits(limits, head, &values, data);
}

void outcome_of_head(test_text *to, const pw_limits *limits, const char *data,
                     const test_cuts *cuts)
{
    pw_field *fields = malloc(limits->max_fields * sizeof *fields);
    REQUIRE(fields != NULL);
    pw_head head = {.fields = fields};
    pw_parse outcome = PW_PARSE_MORE;
    pw_head_progress progress = {0};
    text_clear(to);
    for (size_t i = 0; outcome == PW_PARSE_MORE && i < cuts->count; i++) {
        pw_error error = PW_E_NONE;
        char *piece = exact_copy(data, cuts->at[i]);
        outcome = pw_head_parse(limits, piece, cuts->at[i], &progress, &head, &error);
        if (outcome == PW_PARSE_DONE) {
            add_head(to, &head, piece, cuts->at[i]);
            add_forwarded(to, limits, &head, piece);
        } else if (outcome == PW_PARSE_ERROR) {
            REQUIRE(error != PW_E_NONE);
            add(to, "error %d\n", error);
        }
        free(piece);
    }
    if (outcome == PW_PARSE_MORE)
        text_add(to, LITERAL("more\n"));
    free(fields);
}

/* ------------------------------------------------------------------ chunks */

void outcome_of_chunked(test_text *to, const char *data, const test_cuts *cuts)
{
    pw_chunked chunked;
    memset(&chunked, 0, sizeof chunked);
    pw_parse outcome = PW_PARSE_MORE;
    size_t from = 0, total = 0;
    text_clear(to);
    for (size_t i = 0; outcome == PW_PARSE_MORE && i < cuts->count; i++) {
        size_t size = cuts->at[i] - from, at = 0;
        char *piece = exact_copy(data + from, size);
        while (outcome == PW_PARSE_MORE && at < size) {
            size_t used = size + 1;
            pw_span content = {NULL, 0};
            outcome = pw_chunked_parse(&chunked, piece + at, size - at, &used, &content);
            REQUIRE(used <= size - at && (used > 0 || outcome == PW_PARSE_ERROR));
            REQUIRE(content.size <= used);
            if (content.size > 0) {
                REQUIRE(content.at >= piece + at);
                REQUIRE(content.at + content.size <= piece + at + used);
            }
            text_add(to, content.at, content.size);
            at += used;
        }
        total += at;
        from += size;
        free(piece);
    }
    REQUIRE(outcome == PW_PARSE_ERROR || chunked.total == (int64_t)to->size);
    REQUIRE(outcome != PW_PARSE_MORE || total == from);
    static const char *const words[] = {"done", "more", "error"};
    add(to, " %s %zu", words[outcome], total);
}
