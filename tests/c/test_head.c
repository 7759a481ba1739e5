/* csrc/head.c: the rules for a request head, and the wire corpus in all splits. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "corpus.h"
#include "error_response.h"
#include "fields.h"
#include "head.h"
#include "outcome.h"

static const pw_limits usual = {.max_head_size = 65536, .max_fields = 100};
static const char *corpus;

/* Parses a whole head into `head`, which has at most 100 fields. */
static pw_error parse(const pw_limits *limits, const char *data, size_t size, pw_head *head)
{
    static pw_field fields[100];
    pw_head_progress progress = {0};
    pw_error error = PW_E_NONE;
    memset(head, 0, sizeof *head);
    head->fields = fields;
    pw_parse outcome = pw_head_parse(limits, data, size, &progress, head, &error);
    CHECK_INT(outcome, error == PW_E_NONE ? PW_PARSE_DONE : PW_PARSE_ERROR);
    return error;
}

#define PARSE(text, head) parse(&usual, LITERAL(text), (head))
/* Whether a head of exactly this size is valid. Does not say which error it has. */
#define PARSE_ANY(text, head) (parse(&usual, (text), sizeof(text) - 1, (head)) == PW_E_NONE)
#define CHECK_SPAN(span, expected) CHECK_BYTES((span).at, (span).size, expected)

static void a_head_is_parsed_in_place(void)
{
    pw_head head;
    CHECK_INT(PARSE("GET /a%20b?c=d?e HTTP/1.1\r\nHost: a:80\r\nX-One:\t1 \r\nhost-x:\r\n\r\nrest",
                    &head),
              PW_E_NONE);
    CHECK_SPAN(head.method, "GET");
    CHECK_SPAN(head.target, "/a%20b?c=d?e");
    CHECK_SPAN(head.path, "/a%20b");
    CHECK_SPAN(head.query, "c=d?e");
    CHECK(head.authority.at == NULL);
    CHECK_INT(head.facts.size, sizeof "GET /a%20b?c=d?e HTTP/1.1\r\nHost: a:80\r\nX-One:\t1 "
                                      "\r\nhost-x:\r\n\r\n" -
                                   1);
    CHECK_INT(head.facts.line_size, sizeof "GET /a%20b?c=d?e HTTP/1.1\r\n" - 1);
    CHECK_INT(head.facts.content_length, -1);
    CHECK_INT(head.facts.minor, 1);
    CHECK(head.facts.keep_alive && !head.facts.is_head && !head.facts.chunked);
    CHECK_INT(head.field_count, 3);
    CHECK_INT(head.fields[0].number, PW_KEY_HOST);
    CHECK_SPAN(head.fields[0].value, "a:80");
    CHECK_INT(head.fields[1].number, PW_OTHER_NAME);
    CHECK_SPAN(head.fields[1].name, "X-One");
    CHECK_SPAN(head.fields[1].value, "1");
    CHECK_SPAN(head.fields[2].value, "");
}

static void the_forms_of_a_target_are_distinguished(void)
{
    pw_head head;
    CHECK_INT(PARSE("GET http://u.example:8080?q HTTP/1.1\r\nHost: other\r\n\r\n", &head), 0);
    CHECK_SPAN(head.authority, "u.example:8080");
    CHECK_SPAN(head.path, "/");
    CHECK_SPAN(head.query, "q");
    CHECK_INT(PARSE("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &head), PW_E_NONE);
    CHECK_SPAN(head.path, "*");
    CHECK_INT(PARSE("GET * HTTP/1.1\r\nHost: a\r\n\r\n", &head), PW_E_TARGET);
    CHECK_INT(PARSE("GET a HTTP/1.1\r\nHost: a\r\n\r\n", &head), PW_E_TARGET);
    CHECK_INT(PARSE("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", &head), PW_E_TARGET);
    CHECK_INT(PARSE("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", &head), PW_E_CONNECT);
}

/* Tries each byte in a path and in a query. */
static void a_target_contains_only_valid_bytes(void)
{
    static const char never_in_path[] = "\"<>\\^`{}";
    for (int c = 0; c < 256; c++) {
        char text[] = "GET /a HTTP/1.0\r\n\r\n", query[] = "GET /?a HTTP/1.0\r\n\r\n";
        text[5] = query[6] = (char)c;
        bool allowed = c > ' ' && c < 127 && c != '#';
        bool in_path = allowed && strchr(never_in_path, c) == NULL;
        pw_head head;
        ABOUT("byte %d", c);
        CHECK_INT(PARSE_ANY(text, &head), in_path);
        CHECK_INT(PARSE_ANY(query, &head), allowed);
    }
}

static void hosts_are_valid_or_refused(void)
{
    static const char *const good[] = {"a",   "a.b-c_d~e", "127.0.0.1:80", "[::1]",  "[::]:",
                                       "a,b", "%41%0a:1",  "[v1.a:b]",     "a:65535"};
    static const char *const bad[] = {"",      "  ",       "a b",   "a/",      "a?b",
                                      "u@a",   "[::1",     "[:::]", "[::1]x",  "a:1x",
                                      ":80",   "a:123456", "%4",    "a\xe9",   "[1.2.3.4]",
                                      "[v.a]", "a:80:80",  "[]",    "[::1%25]"};
    char text[200];
    pw_head head;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int size = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        ABOUT("Host: %s", good[i]);
        CHECK_INT(parse(&usual, text, (size_t)size, &head), PW_E_NONE);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int size = snprintf(text, sizeof text, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        ABOUT("Host: %s", bad[i]);
        CHECK_INT(parse(&usual, text, (size_t)size, &head), PW_E_HOST);
    }
}

static void each_rule_has_its_error(void)
{
    static const struct {
        pw_error error;
        const char *text;
    } cases[] = {
        {PW_E_REQUEST_LINE, "GET\r\n\r\n"},
        {PW_E_REQUEST_LINE, "GET  HTTP/1.1\r\n\r\n"},
        {PW_E_REQUEST_LINE, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
        {PW_E_REQUEST_LINE, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
        {PW_E_METHOD, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"},
        {PW_E_METHOD, "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM / HTTP/1.1\r\nHost: a\r\n\r\n"},
        {PW_E_NONE, "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM / HTTP/1.1\r\nHost: a\r\n\r\n"},
        {PW_E_NONE, "GET / HTTP/1.0\r\nHost:\r\n\r\n"},
        {PW_E_TARGET, "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"},
        {PW_E_VERSION, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"},
        {PW_E_VERSION, "GET / http/1.1\r\nHost: a\r\n\r\n"},
        {PW_E_OTHER_VERSION, "PRI * HTTP/2.0\r\n\r\n"},
        {PW_E_LINE_END, "GET / HTTP/1.1\nHost: a\r\n\r\n"},
        {PW_E_LINE_END, "GET / HTTP/1.1\r\nHost: a\n\r\n"},
        {PW_E_LINE_END, "GET / HTTP/1.1\r\nHost: a\r\n\n"},
        {PW_E_FIELD, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"},
        {PW_E_FIELD, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"},
        {PW_E_FIELD, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"},
        {PW_E_FOLD, "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"},
        {PW_E_HOST, "GET / HTTP/1.1\r\n\r\n"},
        {PW_E_HOST, "GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n"},
        {PW_E_TYPE, "GET / HTTP/1.0\r\nContent-Type: a/b\r\ncontent-type:\r\n\r\n"},
        {PW_E_LENGTH, "GET / HTTP/1.0\r\nContent-Length: 9223372036854775808\r\n\r\n"},
        {PW_E_LENGTH, "GET / HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"},
        {PW_E_LENGTH, "GET / HTTP/1.0\r\nContent-Length: 1,1\r\n\r\n"},
        {PW_E_CODING, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {PW_E_CODING, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n"},
        {PW_E_OTHER_CODING,
         "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"},
        {PW_E_LENGTH_AND_CODING, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
                                 "Content-Length: 5\r\n\r\n"},
        {PW_E_EXPECTATION, "GET / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n"},
    };
    pw_head head;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("%s", cases[i].text);
        CHECK_INT(parse(&usual, cases[i].text, strlen(cases[i].text), &head), cases[i].error);
    }
    CHECK_INT(PARSE("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", &head), PW_E_FIELD);
}

static void the_connection_fields_are_understood(void)
{
    pw_head head;
    CHECK_INT(PARSE("HEAD / HTTP/1.7\r\nHost: a\r\nConnection: x ,\tCLOSE\r\n"
                    "Content-Length: 000009223372036854775807\r\n\r\n",
                    &head),
              PW_E_NONE);
    CHECK(head.facts.is_head && !head.facts.keep_alive);
    CHECK_INT(head.facts.minor, 1);
    CHECK_INT(head.facts.content_length, INT64_MAX);
    CHECK_INT(PARSE("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nExpect: x\r\n\r\n", &head), 0);
    CHECK(head.facts.keep_alive && !head.facts.expect_continue);
    CHECK_INT(PARSE("GET / HTTP/1.0\r\n\r\n", &head), PW_E_NONE);
    CHECK(!head.facts.keep_alive);
    CHECK_INT(PARSE("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n"
                    "Expect: 100-Continue\r\n\r\n",
                    &head),
              PW_E_NONE);
    CHECK(head.facts.chunked && head.facts.expect_continue);
}

static void names_with_an_underscore_are_dropped_refused_or_allowed(void)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n";
    pw_limits limits = usual;
    pw_head head;
    CHECK_INT(parse(&limits, LITERAL(text), &head), PW_E_NONE);
    CHECK_INT(head.field_count, 1);
    limits.underscore_fields = PW_UNDERSCORE_REFUSE;
    CHECK_INT(parse(&limits, LITERAL(text), &head), PW_E_UNDERSCORE);
    limits.underscore_fields = PW_UNDERSCORE_ALLOW;
    CHECK_INT(parse(&limits, LITERAL(text), &head), PW_E_NONE);
    CHECK_INT(head.field_count, 2);
    CHECK_INT(head.facts.content_length, -1);
}

static void limits_hold_to_the_byte(void)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\nContent-Length: 10\r\n\r\n";
    pw_limits limits = {.max_head_size = sizeof text - 1, .max_fields = 3, .max_body_size = 10};
    pw_head head;
    CHECK_INT(parse(&limits, LITERAL(text), &head), PW_E_NONE);
    limits.max_head_size--;
    CHECK_INT(parse(&limits, LITERAL(text), &head), PW_E_HEAD_SIZE);
    limits.max_head_size = sizeof text - 1;
    CHECK_INT(parse(&limits,
                    LITERAL("\r\nGET / HTTP/1.1\r\nHost: a\r\nB: c\r\nContent-Length: 10"
                            "\r\n\r\n"),
                    &head),
              PW_E_NONE); /* the empty line before it does not count */
    limits.max_fields = 2;
    CHECK_INT(parse(&limits, LITERAL(text), &head), PW_E_FIELD_COUNT);
    limits.max_fields = 3;
    limits.max_body_size = 9;
    CHECK_INT(parse(&limits, LITERAL(text), &head), PW_E_BODY_SIZE);
    limits.max_body_size = 0;
    CHECK_INT(parse(&limits, LITERAL(text), &head), PW_E_NONE);
}

static int64_t cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Feeds a head in pieces. Returns the time. */
static int64_t feed(const pw_limits *limits, const test_text *text, size_t step, pw_error expected)
{
    static pw_field fields[PW_FIELDS_MOST];
    pw_head head = {.fields = fields};
    pw_head_progress progress = {0};
    pw_error error = PW_E_NONE;
    pw_parse outcome = PW_PARSE_MORE;
    int64_t since = cpu_us();
    for (size_t size = step; outcome == PW_PARSE_MORE && size < text->size + step; size += step)
        outcome = pw_head_parse(limits, text->at, size < text->size ? size : text->size, &progress,
                                &head, &error);
    int64_t took = cpu_us() - since;
    CHECK_INT(error, expected);
    CHECK_INT(outcome, expected == PW_E_NONE ? PW_PARSE_DONE : PW_PARSE_ERROR);
    return took;
}

/* Parsing it from its start for each line would take hundreds of times as long. */
static void a_head_that_arrives_line_by_line_is_not_parsed_from_its_start_each_time(void)
{
    enum { LINE = 4000, LINES = 1000 };
    const pw_limits limits = {.max_head_size = 4 << 20, .max_fields = PW_FIELDS_MOST};
    for (int kind = 0; kind < 3; kind++) {
        test_text text = {NULL, 0, 0};
        char line[LINE];
        memset(line, 'a', sizeof line);
        memcpy(line, "x:", 2);
        memcpy(line + LINE - 2, "\r\n", 2);
        text_add_string(&text, "GET / HTTP/1.0\r\n");
        for (int i = 0; i < LINES; i++)
            text_add(&text, line, sizeof line);
        for (int i = LINES; kind == 2 && i < PW_FIELDS_MOST + 1; i++)
            text_add_string(&text, "x:\r\n");
        text_add_string(&text, kind == 1 ? "bad line\r\n\r\n" : "\r\n");
        pw_error expected = kind == 1 ? PW_E_FIELD : kind == 2 ? PW_E_FIELD_COUNT : PW_E_NONE;
        int64_t whole = feed(&limits, &text, text.size, expected);
        int64_t by_line = feed(&limits, &text, LINE, expected);
        int64_t by_part = feed(&limits, &text, 100, expected);
        ABOUT("kind %d: whole %d us, by line %d us, by part %d us", kind, (int)whole, (int)by_line,
              (int)by_part);
        CHECK(by_line < 20000 + 20 * whole);
        CHECK(by_part < 50000 + 40 * whole);
        text_free(&text);
    }
}

static void an_error_is_refused_as_soon_as_it_is_there(void)
{
    static const struct {
        pw_error error;
        const char *text;
    } cases[] = {
        {PW_E_FOLD, "GET / HTTP/1.1\r\nHost: a\r\n b\r\n"},
        {PW_E_FOLD, "GET / HTTP/1.1\r\nHost: a\n b\r\n\r\n"},
        {PW_E_FOLD, "GET / HTTP/1.1\r\nHost: a\r\n\t\1\r\nbad line\r\n"},
        {PW_E_FIELD, "GET / HTTP/1.1\r\n Host: a\r\n b\r\n"},
        {PW_E_FIELD, "GET / HTTP/1.1\r\nbad line\r\n b\r\n\r\n"},
        {PW_E_FIELD_COUNT, "GET / HTTP/1.1\r\nA: a\r\nB: b\r\nC: c\r\n d\r\n"},
        {PW_E_TARGET, "GET # HTTP/1.1\r\nHost: a\r\n b\r\n"},
        {PW_E_VERSION, "GET / HTTP.1\r\nHost: a\r\n\r\n"},
        {PW_E_VERSION, "GET / H\r\nHost: a\r\n\r\n"},
    };
    const pw_limits limits = {.max_head_size = 1000, .max_fields = 3};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        test_text text = {NULL, 0, 0};
        text_add_string(&text, cases[i].text);
        for (size_t step = 1; step <= text.size; step++) {
            ABOUT("case %zu in pieces of %zu", i, step);
            feed(&limits, &text, step, cases[i].error);
        }
        text_free(&text);
    }
}

static void a_target_over_its_limit_differs_from_a_long_head(void)
{
    static char text[70000];
    pw_head head;
    memset(text, 'a', sizeof text);
    memcpy(text, "GET /", 5);
    CHECK_INT(parse(&usual, text, sizeof text, &head), PW_E_TARGET_SIZE);
    memcpy(text + 5 + PW_TARGET_MOST - 1, LITERAL(" HTTP/1.0\r\n\r\n"));
    CHECK_INT(parse(&usual, text, sizeof text, &head), PW_E_NONE);
    memcpy(text + 5 + PW_TARGET_MOST - 1, LITERAL("a HTTP/1.0\r\n\r\n"));
    CHECK_INT(parse(&usual, text, sizeof text, &head), PW_E_TARGET_SIZE);
    memcpy(text, "GET / ", 6);
    memset(text + 6, 'a', sizeof text - 6);
    CHECK_INT(parse(&usual, text, sizeof text, &head), PW_E_HEAD_SIZE);
}

/* Every split has the same outcome as the whole, and a refusal is one that the case allows. */
static void check_case(const test_case *one)
{
    if (one->settings.proxy_protocol)
        return; /* it does not begin with a head */
    const pw_limits limits = {
        .max_head_size = (size_t)one->settings.max_head_size,
        .max_fields = (size_t)one->settings.max_fields,
        .max_body_size = one->settings.max_body_size,
        .underscore_fields = one->settings.underscore_fields,
    };
    test_text whole = {NULL, 0, 0}, split = {NULL, 0, 0};
    size_t size = one->data.size;
    test_cuts cuts = cuts_none(size);
    outcome_of_head(&whole, &limits, one->data.at, &cuts);
    cuts = cuts_all(size);
    outcome_of_head(&split, &limits, one->data.at, &cuts);
    CHECK(text_same(&whole, &split));
    size_t step = size < 2000 ? 1 : size / 50;
    for (size_t at = 0; at < size; at += step) {
        cuts = cuts_one(at, size);
        outcome_of_head(&split, &limits, one->data.at, &cuts);
        ABOUT("%s split at %zu", one->name, at);
        CHECK(text_same(&whole, &split));
    }
    int error;
    text_add(&whole, "", 1);
    if (sscanf(whole.at, "error %d", &error) == 1) {
        int status = pw_error_status((pw_error)error);
        ABOUT("%s: %d", one->name, status);
        CHECK(one->requests == 0 ? corpus_allows(one->statuses, status)
                                 : corpus_allows(one->alternatives, status));
    }
    text_free(&whole);
    text_free(&split);
}

static void the_wire_corpus_has_one_outcome_however_it_is_split(void)
{
    corpus_each(corpus, check_case);
}

int main(int count, char **arguments)
{
    corpus = count > 1 ? arguments[1] : "build/sanitize/corpus";
    RUN(a_head_is_parsed_in_place);
    RUN(the_forms_of_a_target_are_distinguished);
    RUN(a_target_contains_only_valid_bytes);
    RUN(hosts_are_valid_or_refused);
    RUN(each_rule_has_its_error);
    RUN(the_connection_fields_are_understood);
    RUN(names_with_an_underscore_are_dropped_refused_or_allowed);
    RUN(limits_hold_to_the_byte);
    RUN(a_head_that_arrives_line_by_line_is_not_parsed_from_its_start_each_time);
    RUN(an_error_is_refused_as_soon_as_it_is_there);
    RUN(a_target_over_its_limit_differs_from_a_long_head);
    RUN(the_wire_corpus_has_one_outcome_however_it_is_split);
    return check_end();
}
