/* csrc/environ.c: the block of values that becomes the environ. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "alloc.h"
#include "check.h"
#include "environ.h"
#include "fields.h"
#include "forwarded.h"
#include "head.h"
#include "text.h"

static const pw_limits usual = {.max_head_size = 65536, .max_fields = 100};
static const pw_peer no_peer = {"", ""};

/* The usual values, which the block of a whole head leaves out, in the order of the block. */
static const struct {
    uint8_t number;
    const char *value;
} usual_values[] = {
    {PW_KEY_METHOD, "GET"},
    {PW_KEY_QUERY, ""},
    {PW_KEY_PROTOCOL, "HTTP/1.1"},
};
enum { USUAL_VALUES = 3 };

/* Adds the usual values whose number is smaller than this one. */
static void add_usual(test_text *to, size_t *next, uint8_t number)
{
    while (*next < USUAL_VALUES && usual_values[*next].number != number) {
        text_add_string(to, pw_key(usual_values[*next].number));
        text_add(to, "=", 1);
        text_add_string(to, usual_values[(*next)++].value);
        text_add(to, "|", 1);
    }
    *next += *next < USUAL_VALUES;
}

/* Adds "KEY=value|" for each value, the last one without its "|". */
static void read_block(test_text *to, const pw_block *block, bool whole)
{
    const char *numbers = block->at, *at = numbers + block->values + 1;
    size_t next_usual = whole ? 0 : USUAL_VALUES;
    CHECK_INT(strlen(numbers), block->values);
    for (uint32_t i = 0; i < block->values; i++) {
        add_usual(to, &next_usual, (uint8_t)numbers[i]);
        const char *end = i + 1 < block->values ? at + strlen(at) : block->at + block->size;
        uint8_t number = (uint8_t)numbers[i];
        if (number == PW_OTHER_NAME) {
            const char *mark = memchr(at, 1, (size_t)(end - at));
            REQUIRE(mark != NULL);
            text_add(to, at, (size_t)(mark - at));
            CHECK_INT(block->flags, PW_OTHER_NAMES);
            at = mark + 1;
        } else {
            text_add_string(to, pw_key(number));
        }
        text_add(to, "=", 1);
        text_add(to, at, (size_t)(end - at));
        text_add(to, "|", i + 1 < block->values);
        at = end + 1;
    }
}

/* Makes the block of a head. */
static void environ_of(test_text *to, const char *data, size_t size, const pw_peer *peer,
                       int64_t length, bool line_only)
{
    static pw_field fields[100];
    pw_head head = {.fields = fields};
    pw_head_progress progress = {0};
    pw_error error;
    pw_limits limits = usual;
    limits.underscore_fields = PW_UNDERSCORE_ALLOW;
    REQUIRE(pw_head_parse(&limits, data, size, &progress, &head, &error) == PW_PARSE_DONE);
    pw_block block = {.at = malloc(pw_block_most(&limits))};
    static const pw_changes changes = {1, {{PW_KEY_COOKIE, {"c=d", 3}}}};
    if (line_only)
        pw_block_make_line(&block, &head, length >= 0, &changes);
    else
        pw_block_make(&block, &head, peer, NULL, NULL, length);
    text_clear(to);
    read_block(to, &block, !line_only);
    free(block.at);
}

#define CHECK_ENVIRON(head, length, expected)                                                      \
    do {                                                                                           \
        test_text text = {NULL, 0, 0};                                                             \
        environ_of(&text, LITERAL(head), &no_peer, (length), false);                               \
        CHECK_TEXT(&text, expected);                                                               \
        text_free(&text);                                                                          \
    } while (0)

/* The first values if the peer has no name. */
#define LINE(method, query, version, uri)                                                          \
    "REQUEST_METHOD=" method "|QUERY_STRING=" query "|SERVER_PROTOCOL=HTTP/" version               \
    "|REQUEST_URI=" uri "|REMOTE_ADDR=|REMOTE_PORT=|"

static void a_head_becomes_keys_and_values(void)
{
    CHECK_ENVIRON("GET /a?b=c HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nX-New: n\r\n\r\n", -1,
                  LINE("GET", "b=c", "1.1",
                       "/a?b=c") "HTTP_HOST=h|HTTP_ACCEPT=*/*|HTTP_X_NEW=n|PATH_INFO=/a");
}

static void the_peer_is_named(void)
{
    static const pw_peer peer = {"127.0.0.1", "12345"};
    test_text text = {NULL, 0, 0};
    environ_of(&text, LITERAL("GET / HTTP/1.0\r\n\r\n"), &peer, -1, false);
    CHECK_HOLDS(&text, "|REMOTE_ADDR=127.0.0.1|REMOTE_PORT=12345|");
    CHECK_HOLDS(&text, "|SERVER_PROTOCOL=HTTP/1.0|");
    text_free(&text);
}

static void a_changed_line_updates_its_values_and_those_of_the_request_line(void)
{
    test_text text = {NULL, 0, 0};
    environ_of(&text, LITERAL("PUT /%41?q HTTP/1.1\r\nHost: h\r\nX-New: n\r\n\r\n"), &no_peer, -1,
               true);
    CHECK_TEXT(&text, "REQUEST_METHOD=PUT|QUERY_STRING=q|REQUEST_URI=/%41?q|HTTP_COOKIE=c=d|"
                      "PATH_INFO=/A");
    environ_of(&text, LITERAL("PUT / HTTP/1.1\r\nHost: h\r\n\r\n"), &no_peer, 5, true);
    CHECK_TEXT(&text, "QUERY_STRING=|REQUEST_URI=/|HTTP_COOKIE=c=d|PATH_INFO=/");
    text_free(&text);
}

static void the_length_of_the_content_is_right_regardless_of_the_fields(void)
{
    CHECK_ENVIRON("PUT / HTTP/1.0\r\nContent-Length: 0007\r\nContent-Type: a\r\n\r\n", 7,
                  LINE("PUT", "", "1.0", "/") "CONTENT_LENGTH=7|CONTENT_TYPE=a|PATH_INFO=/");
    CHECK_ENVIRON(
        "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", INT64_MAX,
        LINE("PUT", "", "1.1", "/") "CONTENT_LENGTH=9223372036854775807|HTTP_HOST=h|PATH_INFO=/");
}

static void repeated_fields_are_joined(void)
{
    CHECK_ENVIRON(
        "GET / HTTP/1.0\r\nAccept: a\r\nX-A: 1\r\nAccept: \r\nCookie: a=b\r\nx_a: 2\r\n"
        "ACCEPT: c\r\nCookie: c=d\r\nX-B: 3\r\nX-a: 4\r\n\r\n",
        -1,
        LINE("GET", "", "1.0",
             "/") "HTTP_COOKIE=a=b; c=d|HTTP_ACCEPT=a,,c|HTTP_X_A=1,2,4|HTTP_X_B=3|PATH_INFO=/");
}

/* Names with a common beginning, in all cases and with repetitions, compared with a simple join. */
static void many_repeated_fields_are_joined_too(void)
{
    for (int names = 1; names <= 90; names++) {
        test_text head = {NULL, 0, 0}, expected = {NULL, 0, 0}, block = {NULL, 0, 0};
        text_add_string(&head, "GET / HTTP/1.0\r\n");
        text_add_string(&expected, LINE("GET", "", "1.0", "/"));
        for (int i = 0; i < 90; i++) {
            char line[100];
            snprintf(line, sizeof line, "%s%d-%c: %d\r\n", i / names % 2 ? "X-AAAA" : "x-aaaa",
                     i % names, i / names % 3 ? 'b' : 'B', i);
            text_add_string(&head, line);
        }
        text_add_string(&head, "\r\n");
        for (int name = 0; name < names; name++) {
            char value[100];
            snprintf(value, sizeof value, "HTTP_X_AAAA%d_B=", name);
            text_add_string(&expected, value);
            for (int i = name; i < 90; i += names) {
                snprintf(value, sizeof value, "%s%d", i > name ? "," : "", i);
                text_add_string(&expected, value);
            }
            text_add_string(&expected, "|");
        }
        text_add_string(&expected, "PATH_INFO=/");
        environ_of(&block, head.at, head.size, &no_peer, -1, false);
        ABOUT("%d names", names);
        CHECK(text_same(&block, &expected));
        text_free(&head);
        text_free(&expected);
        text_free(&block);
    }
}

static int64_t cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The largest head that the options allow, with as many fields. Comparing all names with each other
 * would take many seconds. */
static void names_with_a_common_beginning_take_no_more_time_than_others(void)
{
    static pw_field fields[PW_FIELDS_MOST];
    const pw_limits limits = {.max_head_size = 4 << 20, .max_fields = PW_FIELDS_MOST};
    int64_t same = 0;
    for (int kind = 0; kind < 4; kind++) { /* the same name, all different, two of each, few */
        int count = kind == 3 ? 8 : PW_FIELDS_MOST;
        size_t size = (4 << 20) / (size_t)count - 30;
        char *name = malloc(size);
        REQUIRE(name != NULL);
        memset(name, 'a', size);
        test_text head = {NULL, 0, 0};
        text_add_string(&head, "GET / HTTP/1.0\r\n");
        for (int i = 0; i < count; i++) {
            char end[40];
            snprintf(end, sizeof end, "%d:%d\r\n", kind == 0 ? 7 : kind == 2 ? i / 2 : i, i);
            text_add(&head, name, size);
            text_add_string(&head, end);
        }
        text_add_string(&head, "\r\n");
        pw_head parsed = {.fields = fields};
        pw_head_progress progress = {0};
        pw_error error;
        pw_block block = {.at = malloc(pw_block_most(&limits))};
        REQUIRE(block.at != NULL);
        REQUIRE(pw_head_parse(&limits, head.at, head.size, &progress, &parsed, &error) ==
                PW_PARSE_DONE);
        int64_t since = cpu_ms();
        pw_block_make(&block, &parsed, &no_peer, NULL, NULL, -1);
        int64_t took = cpu_ms() - since;
        same = kind == 0 ? took : same;
        ABOUT("kind %d took %d ms, the same name %d ms", kind, (int)took, (int)same);
        CHECK(took < 50 + 10 * same);
        CHECK_INT(block.values, 5 + (kind == 0 ? 1 : kind == 2 ? count / 2 : count));
        free(block.at);
        free(name);
        text_free(&head);
    }
}

static void a_name_with_an_underscore_differs_from_the_known_field(void)
{
    CHECK_ENVIRON(
        "GET / HTTP/1.0\r\nContent_Length: 9\r\nContent_Type: x\r\n\r\n", -1,
        LINE("GET", "", "1.0", "/") "HTTP_CONTENT_LENGTH=9|HTTP_CONTENT_TYPE=x|PATH_INFO=/");
}

static void the_authority_of_the_target_replaces_host(void)
{
    CHECK_ENVIRON(
        "GET http://real:1/p?q HTTP/1.1\r\nHost: other\r\nAccept: a\r\n\r\n", -1,
        LINE("GET", "q", "1.1", "http://real:1/p?q") "HTTP_HOST=real:1|HTTP_ACCEPT=a|PATH_INFO=/p");
}

static void the_path_is_decoded_once_and_the_query_never(void)
{
    CHECK_ENVIRON(
        "GET //a%2Fb%252f%c3%A9%00%01%zz%4%?%41%00 HTTP/1.0\r\n\r\n", -1,
        LINE("GET", "%41%00", "1.0",
             "//a%2Fb%252f%c3%A9%00%01%zz%4%?%41%00") "PATH_INFO=//a/b%2f\xc3\xa9\0\1%zz%4%");
}

static void the_order_of_the_fields_does_not_matter(void)
{
    static const char expected[] =
        LINE("GET", "", "1.0",
             "/") "HTTP_HOST=h|HTTP_COOKIE=c|HTTP_ACCEPT=a"
                  "|HTTP_REFERER=r|HTTP_USER_AGENT=u|HTTP_X_B=1|HTTP_X_A=2|PATH_INFO=/";
    CHECK_ENVIRON(
        "GET / HTTP/1.0\r\nHost: h\r\nCookie: c\r\nAccept: a\r\nReferer: r\r\nUser-Agent: u\r\n"
        "X-B: 1\r\nX-A: 2\r\n\r\n",
        -1, expected);
    CHECK_ENVIRON(
        "GET / HTTP/1.0\r\nX-B: 1\r\nUser-Agent: u\r\nReferer: r\r\nX-A: 2\r\nAccept: a\r\n"
        "Cookie: c\r\nHost: h\r\n\r\n",
        -1, expected);
}

/* The changes of `data` since `before`. "whole": all values are needed. */
static void changes_of(test_text *to, const char *before, const char *data, int64_t length)
{
    static pw_field fields[100];
    pw_head head = {.fields = fields};
    pw_limits limits = usual;
    pw_head_progress progress = {0};
    pw_error error;
    REQUIRE(pw_head_parse(&limits, before, strlen(before), &progress, &head, &error) ==
            PW_PARSE_DONE);
    pw_template *template = pw_template_new(&head, NULL, before);
    progress = (pw_head_progress){0};
    head = (pw_head){.fields = fields};
    REQUIRE(pw_head_parse(&limits, data, strlen(data), &progress, &head, &error) == PW_PARSE_DONE);
    pw_block block = {.at = malloc(pw_block_most(&limits))};
    text_clear(to);
    if (template != NULL && pw_block_make_changes(&block, &head, NULL, length, template, before))
        read_block(to, &block, false);
    else
        text_add(to, LITERAL("whole"));
    pw_free(template);
    free(block.at);
}

#define HEAD(line, fields) line " HTTP/1.1\r\nHost: h\r\n" fields "\r\n"
#define COMMON "QUERY_STRING=|REQUEST_URI=/|"

static void only_changed_values_are_reported(void)
{
    static const struct {
        const char *before, *data;
        int64_t length;
        const char *expected;
    } cases[] = {
        {HEAD("GET /", ""), HEAD("GET /", ""), -1, COMMON "PATH_INFO=/"},
        {HEAD("GET /", ""), HEAD("GET /%41?b", ""), -1,
         "QUERY_STRING=b|REQUEST_URI=/%41?b|PATH_INFO=/A"},
        {HEAD("GET /", ""), HEAD("HEAD /", ""), -1, "REQUEST_METHOD=HEAD|" COMMON "PATH_INFO=/"},
        {HEAD("GET /", "Accept: a\r\nCookie: c\r\n"), HEAD("GET /", "Cookie: d\r\nAccept: a\r\n"),
         -1, COMMON "HTTP_COOKIE=d|PATH_INFO=/"},
        {HEAD("GET /", "Accept: ab\r\n"), HEAD("GET /", "Accept: a\r\n"), -1,
         COMMON "HTTP_ACCEPT=a|PATH_INFO=/"},
        /* one field more, one field less */
        {HEAD("GET /", ""), HEAD("GET /", "Accept: a\r\n"), -1, COMMON "HTTP_ACCEPT=a|PATH_INFO=/"},
        {HEAD("GET /", "Accept: a\r\n"), HEAD("GET /", ""), -1, "whole"},
        {HEAD("GET /", "Accept: a\r\n"), HEAD("GET /", "Cookie: c\r\n"), -1, "whole"},
        /* a value is always sent if its name came more than once */
        {HEAD("GET /", "Accept: a\r\nAccept: b\r\n"), HEAD("GET /", "Accept: a\r\nAccept: b\r\n"),
         -1, COMMON "HTTP_ACCEPT=a,b|PATH_INFO=/"},
        {HEAD("GET /", "Accept: a\r\nAccept: b\r\n"), HEAD("GET /", "Accept: a\r\n"), -1,
         COMMON "HTTP_ACCEPT=a|PATH_INFO=/"},
        {HEAD("GET /", "Accept: a\r\n"), HEAD("GET /", "Accept: a\r\nAccept: b\r\n"), -1,
         COMMON "HTTP_ACCEPT=a,b|PATH_INFO=/"},
        /* the length is the size of the content */
        {HEAD("PUT /", "Content-Length: 1\r\n"), HEAD("PUT /", "Content-Length: 02\r\n"), 2,
         COMMON "CONTENT_LENGTH=2|PATH_INFO=/"},
        {HEAD("PUT /", "Content-Length: 1\r\n"), HEAD("PUT /", "Transfer-Encoding: chunked\r\n"), 3,
         COMMON "CONTENT_LENGTH=3|PATH_INFO=/"},
        {HEAD("PUT /", ""), HEAD("PUT /", "Content-Length: 0\r\n"), 0,
         COMMON "CONTENT_LENGTH=0|PATH_INFO=/"},
        {HEAD("PUT /", "Content-Length: 1\r\n"), HEAD("PUT /", ""), -1, "whole"},
        /* names without a number, another Host, another version */
        {HEAD("GET /", "X-A: a\r\n"), HEAD("GET /", "X-A: a\r\n"), -1, "whole"},
        {HEAD("GET /", ""), HEAD("GET /", "X-A: a\r\n"), -1, "whole"},
        {HEAD("GET http://b/", ""), HEAD("GET /", ""), -1, "whole"},
        {HEAD("GET /", ""), HEAD("GET http://b/", ""), -1, "whole"},
        {HEAD("GET /", ""), "GET / HTTP/1.0\r\nHost: h\r\n\r\n", -1, "whole"},
        {"GET / HTTP/1.0\r\nHost: h\r\n\r\n", "GET / HTTP/1.0\r\nHost: i\r\n\r\n", -1,
         COMMON "HTTP_HOST=i|PATH_INFO=/"},
    };
    test_text text = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("case %zu", i);
        changes_of(&text, cases[i].before, cases[i].data, cases[i].length);
        check_bytes(__FILE__, __LINE__, "changes", text.at, text.size, cases[i].expected,
                    strlen(cases[i].expected));
    }
    ABOUT("%s", "");
    text_free(&text);
}

/* ------------------------------------------------------------------ forwarded values */

static const pw_limits reading = {
    .max_head_size = 65536, .max_fields = 100, .forwarding = PW_FORWARDING_READ};
static const pw_peer proxy = {"127.0.0.1", "5000"};

static void parse_forwarded(pw_head *head, pw_forwarded *forwarded, const char *data)
{
    static const pw_network networks[] = {{PW_NETWORK_V4, 32, {127, 0, 0, 1}}};
    static const pw_trust trust = {networks, 1};
    pw_head_progress progress = {0};
    pw_error error;
    REQUIRE(pw_head_parse(&reading, data, strlen(data), &progress, head, &error) == PW_PARSE_DONE);
    REQUIRE(!head->facts.forwarded || pw_forwarded_read(&trust, head, forwarded));
}

/* The block of a head from a proxy. With `before`: the changes since that head, or "whole". */
static void forwarded_of(test_text *to, const char *before, const char *data, const char *root)
{
    static pw_field fields[100];
    pw_head head = {.fields = fields};
    pw_forwarded forwarded;
    pw_block block = {.at = malloc(pw_block_most(&reading)), .root = {root, strlen(root)}};
    pw_template *template = NULL;
    text_clear(to);
    if (before != NULL) {
        parse_forwarded(&head, &forwarded, before);
        template = pw_template_new(&head, head.facts.forwarded ? &forwarded : NULL, before);
        REQUIRE(template != NULL);
    }
    parse_forwarded(&head, &forwarded, data);
    const pw_forwarded *given = head.facts.forwarded ? &forwarded : NULL;
    if (before == NULL)
        pw_block_make(&block, &head, &proxy, NULL, given, -1);
    if (before == NULL || pw_block_make_changes(&block, &head, given, -1, template, before))
        read_block(to, &block, before == NULL);
    else
        text_add(to, LITERAL("whole"));
    pw_free(template);
    free(block.at);
}

#define XFF(value) "X-Forwarded-For: " value "\r\n"
#define CLIENT(address) "REMOTE_ADDR=" address "|REMOTE_PORT=|"

static void a_trusted_proxy_replaces_what_it_forwards(void)
{
    static const struct {
        const char *before, *data, *expected;
    } cases[] = {
        {NULL, HEAD("GET /", XFF("192.0.2.1")),
         "REQUEST_METHOD=GET|QUERY_STRING=|SERVER_PROTOCOL=HTTP/1.1|REQUEST_URI=/|" CLIENT(
             "192.0.2.1") "HTTP_HOST=h|HTTP_X_FORWARDED_FOR=192.0.2.1|picowsgi.peer=127.0.0.1|"
                          "picowsgi.peer_port=5000"
                          "|PATH_INFO=/"},
        {NULL,
         HEAD("GET http://real/", "X-Forwarded-Proto: https\r\nX-Own: o\r\n"
                                  "X-Forwarded-Host: a:444\r\nX-Forwarded-Prefix: /p\r\n"),
         "REQUEST_METHOD=GET|QUERY_STRING=|SERVER_PROTOCOL=HTTP/1.1|REQUEST_URI=http://real/"
         "|REMOTE_ADDR=127.0.0.1|REMOTE_PORT=5000|HTTP_HOST=a:444|HTTP_X_FORWARDED_PROTO=https"
         "|HTTP_X_FORWARDED_HOST=a:444|HTTP_X_FORWARDED_PREFIX=/"
         "p|picowsgi.peer=127.0.0.1|picowsgi.peer_port=5000"
         "|wsgi.url_scheme=https|HTTPS=on|SERVER_NAME=a|SERVER_PORT=444|SCRIPT_NAME=/p"
         "|HTTP_X_OWN=o|PATH_INFO=/"},
        {NULL, "GET / HTTP/1.0\r\nX-Forwarded-Host: a\r\n\r\n",
         "REQUEST_METHOD=GET|QUERY_STRING=|SERVER_PROTOCOL=HTTP/1.0|REQUEST_URI=/"
         "|REMOTE_ADDR=127.0.0.1|REMOTE_PORT=5000|HTTP_HOST=a|HTTP_X_FORWARDED_HOST=a"
         "|picowsgi.peer=127.0.0.1|picowsgi.peer_port=5000|SERVER_NAME=a|SERVER_PORT=80|PATH_INFO="
         "/"},
        /* changes: all forwarded values come again */
        {HEAD("GET /", XFF("192.0.2.1")), HEAD("GET /", XFF("192.0.2.2")),
         COMMON "HTTP_X_FORWARDED_FOR=192.0.2.2|" CLIENT("192.0.2.2") "PATH_INFO=/"},
        {HEAD("GET /", XFF("192.0.2.1")), HEAD("GET /", XFF("192.0.2.1") "Cookie: c\r\n"),
         COMMON "HTTP_COOKIE=c|" CLIENT("192.0.2.1") "PATH_INFO=/"},
        {HEAD("GET /", "X-Forwarded-Proto: https\r\n"),
         HEAD("GET /", "X-Forwarded-Proto: HTTPS\r\n"),
         COMMON "HTTP_X_FORWARDED_PROTO=HTTPS|wsgi.url_scheme=https|HTTPS=on|SERVER_PORT=443"
                "|PATH_INFO=/"},
        {"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Host: a\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: other\r\nX-Forwarded-Host: b\r\n\r\n",
         COMMON "HTTP_X_FORWARDED_HOST=b|HTTP_HOST=b|SERVER_NAME=b|SERVER_PORT=80|PATH_INFO=/"},
        /* one value more or less */
        {HEAD("GET /", "X-Forwarded-Proto: https\r\n"),
         HEAD("GET /", "X-Forwarded-Proto: http\r\n"), "whole"},
        {HEAD("GET /", "X-Forwarded-Proto: http\r\n"),
         HEAD("GET /", "X-Forwarded-Proto: https\r\n"), "whole"},
        {HEAD("GET /", ""), HEAD("GET /", XFF("192.0.2.1")), "whole"},
        {HEAD("GET /", XFF("192.0.2.1")), HEAD("GET /", ""), "whole"},
        {HEAD("GET /", "Forwarded: for=192.0.2.1\r\n"), HEAD("GET /", "Forwarded: by=_a\r\n"),
         "whole"},
    };
    test_text text = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("case %zu", i);
        forwarded_of(&text, cases[i].before, cases[i].data, "");
        check_bytes(__FILE__, __LINE__, "block", text.at, text.size, cases[i].expected,
                    strlen(cases[i].expected));
    }
    ABOUT("%s", "");
    text_free(&text);
}

static void the_prefix_is_removed_from_a_path_below_it(void)
{
    static const struct {
        const char *data, *root, *path;
    } cases[] = {
        {HEAD("GET /app/x", ""), "/app", "PATH_INFO=/x"},
        {HEAD("GET /app", ""), "/app", "PATH_INFO="},
        {HEAD("GET /app/", ""), "/app", "PATH_INFO=/"},
        {HEAD("GET /%61pp/x?/app", ""), "/app", "PATH_INFO=/x"},
        {HEAD("GET /apple", ""), "/app", "PATH_INFO=/apple"},
        {HEAD("GET /ap", ""), "/app", "PATH_INFO=/ap"},
        {HEAD("GET /x/app/y", ""), "/app", "PATH_INFO=/x/app/y"},
        {HEAD("GET /app/app/y", ""), "/app", "PATH_INFO=/app/y"},
        {HEAD("OPTIONS *", ""), "/app", "PATH_INFO=*"},
        {HEAD("GET /app/x", "X-Forwarded-Prefix: /app\r\n"), "", "PATH_INFO=/x"},
        {HEAD("GET /app/x", "X-Forwarded-Prefix: /app\r\n"), "/other", "PATH_INFO=/x"},
        {HEAD("GET /app/x", "X-Forwarded-Prefix: /other\r\n"), "/app", "PATH_INFO=/app/x"},
        {HEAD("GET /app/x", "X-Forwarded-Prefix: /\r\n"), "/app", "PATH_INFO=/app/x"},
        {HEAD("GET /app/x", "X-Forwarded-Proto: http\r\n"), "/app", "PATH_INFO=/x"},
    };
    test_text text = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("case %zu", i);
        for (int changes = 0; changes < 2; changes++) {
            size_t size = strlen(cases[i].path);
            forwarded_of(&text, changes ? cases[i].data : NULL, cases[i].data, cases[i].root);
            REQUIRE(text.size > size);
            CHECK(text.at[text.size - size - 1] == '|' &&
                  memcmp(text.at + text.size - size, cases[i].path, size) == 0);
        }
    }
    ABOUT("%s", "");
    text_free(&text);
}

static void digits_are_written_in_full(void)
{
    char digits[20];
    CHECK_BYTES(digits, pw_digits(digits, 0), "0");
    CHECK_BYTES(digits, pw_digits(digits, 1234567890), "1234567890");
    CHECK_BYTES(digits, pw_digits(digits, INT64_MAX), "9223372036854775807");
}

/* The largest head of each kind within these limits. The memory after the block is guarded. */
static void a_block_is_never_larger_than_its_maximum(void)
{
    static const pw_peer peer = {"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "65535"};
    for (int kind = 0; kind < 3; kind++) {
        pw_limits limits = {.max_head_size = 700, .max_fields = 100};
        char data[800] = "";
        if (kind == 0) { /* the target is sent whole, as path and as query */
            strcat(data, "A http://a/");
            memset(data + strlen(data), '%', 300);
            strcat(data, "?");
            memset(data + strlen(data), 'q', 300);
            strcat(data, " HTTP/1.1\r\nHost:a\r\n\r\n");
        } else { /* the largest number of fields, with and without a number */
            strcat(data, "A / HTTP/1.1\r\nHost:a\r\n");
            for (int i = 0; i < 99; i++) {
                char line[] = "x:\r\n";
                line[0] =
                    kind == 1 ? (char)("abcdefghijklmnopqrstuvwxyz!#$%&'*+-.^`|~"[i % 40]) : 'a';
                strcat(data, line);
            }
            strcat(data, "\r\n");
        }
        static pw_field fields[100];
        pw_head head = {.fields = fields};
        pw_head_progress progress = {0};
        pw_error error;
        ABOUT("kind %d", kind);
        REQUIRE(pw_head_parse(&limits, data, strlen(data), &progress, &head, &error) ==
                PW_PARSE_DONE);
        pw_block block = {.at = malloc(pw_block_most(&limits))};
        pw_block_make(&block, &head, &peer, NULL, NULL, INT64_MAX);
        CHECK(block.size <= pw_block_most(&limits));
        free(block.at);
    }
}

int main(void)
{
    RUN(a_head_becomes_keys_and_values);
    RUN(the_peer_is_named);
    RUN(a_changed_line_updates_its_values_and_those_of_the_request_line);
    RUN(the_length_of_the_content_is_right_regardless_of_the_fields);
    RUN(repeated_fields_are_joined);
    RUN(many_repeated_fields_are_joined_too);
    RUN(names_with_a_common_beginning_take_no_more_time_than_others);
    RUN(a_name_with_an_underscore_differs_from_the_known_field);
    RUN(the_authority_of_the_target_replaces_host);
    RUN(the_path_is_decoded_once_and_the_query_never);
    RUN(the_order_of_the_fields_does_not_matter);
    RUN(only_changed_values_are_reported);
    RUN(a_trusted_proxy_replaces_what_it_forwards);
    RUN(the_prefix_is_removed_from_a_path_below_it);
    RUN(digits_are_written_in_full);
    RUN(a_block_is_never_larger_than_its_maximum);
    return check_end();
}
