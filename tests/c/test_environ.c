/* csrc/environ.c: the block of values that becomes the environ. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "core.h"

static const pw_limits usual = {.max_head_size = 65536, .max_fields = 100};
static const pw_peer nobody = {"", ""};

/* The block of a head, as "KEY=value|" for each value, the last one without its "|". */
static void environ_of(test_text *to, const char *data, size_t size, const pw_peer *peer,
                       int64_t length, bool line_only)
{
    static pw_field fields[100];
    pw_head head = {.fields = fields};
    size_t scanned = 0;
    pw_error error;
    pw_limits limits = usual;
    limits.underscore_fields = PW_UNDERSCORE_ALLOW;
    REQUIRE(pw_head_parse(&limits, data, size, &scanned, &head, &error) == PW_PARSE_DONE);
    pw_block block = {.at = malloc(pw_block_most(&limits))};
    if (line_only)
        pw_block_make_line(&block, &head);
    else
        pw_block_make(&block, &head, peer, length);
    text_clear(to);
    const char *at = block.at, *numbers = block.at + block.size - block.values;
    for (uint32_t i = 0; i < block.values; i++) {
        const char *end = i + 1 < block.values ? at + strlen(at) : numbers;
        uint8_t number = (uint8_t)numbers[i];
        if (number == PW_OTHER_NAME) {
            const char *mark = memchr(at, 1, (size_t)(end - at));
            REQUIRE(mark != NULL);
            text_add(to, at, (size_t)(mark - at));
            CHECK(block.other_names);
            at = mark + 1;
        } else {
            text_add_string(to, pw_key(number));
        }
        text_add(to, "=", 1);
        text_add(to, at, (size_t)(end - at));
        text_add(to, "|", i + 1 < block.values);
        at = end + 1;
    }
    free(block.at);
}

#define CHECK_ENVIRON(head, length, expected)                                                      \
    do {                                                                                           \
        test_text text = {NULL, 0, 0};                                                             \
        environ_of(&text, LITERAL(head), &nobody, (length), false);                                \
        CHECK_TEXT(&text, expected);                                                               \
        text_free(&text);                                                                          \
    } while (0)

/* What comes first where the peer has no name. */
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

static void a_line_alone_has_the_values_of_the_request_line(void)
{
    test_text text = {NULL, 0, 0};
    environ_of(&text, LITERAL("PUT /%41?q HTTP/1.1\r\nHost: h\r\nX-New: n\r\n\r\n"), &nobody, 5,
               true);
    CHECK_TEXT(&text, "REQUEST_METHOD=PUT|QUERY_STRING=q|SERVER_PROTOCOL=HTTP/1.1|"
                      "REQUEST_URI=/%41?q|PATH_INFO=/A");
    text_free(&text);
}

static void content_has_its_own_length_whatever_the_fields_say(void)
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
             "/") "HTTP_ACCEPT=a,,c|HTTP_X_A=1,2,4|HTTP_COOKIE=a=b; c=d|HTTP_X_B=3|PATH_INFO=/");
}

static void a_name_with_an_underscore_is_not_that_of_the_known_field(void)
{
    CHECK_ENVIRON(
        "GET / HTTP/1.0\r\nContent_Length: 9\r\nContent_Type: x\r\n\r\n", -1,
        LINE("GET", "", "1.0", "/") "HTTP_CONTENT_LENGTH=9|HTTP_CONTENT_TYPE=x|PATH_INFO=/");
}

static void the_authority_of_the_target_replaces_host(void)
{
    CHECK_ENVIRON(
        "GET http://real:1/p?q HTTP/1.1\r\nHost: other\r\nAccept: a\r\n\r\n", -1,
        LINE("GET", "q", "1.1", "http://real:1/p?q") "HTTP_ACCEPT=a|HTTP_HOST=real:1|PATH_INFO=/p");
}

static void the_path_is_decoded_once_and_the_query_never(void)
{
    CHECK_ENVIRON(
        "GET //a%2Fb%252f%c3%A9%00%01%zz%4%?%41%00 HTTP/1.0\r\n\r\n", -1,
        LINE("GET", "%41%00", "1.0",
             "//a%2Fb%252f%c3%A9%00%01%zz%4%?%41%00") "PATH_INFO=//a/b%2f\xc3\xa9\0\1%zz%4%");
}

static void digits_are_written_in_full(void)
{
    char digits[20];
    CHECK_BYTES(digits, pw_digits(digits, 0), "0");
    CHECK_BYTES(digits, pw_digits(digits, 1234567890), "1234567890");
    CHECK_BYTES(digits, pw_digits(digits, INT64_MAX), "9223372036854775807");
}

/* The worst of each kind within limits that it fills; memory past the end is guarded. */
static void a_block_is_never_larger_than_its_most(void)
{
    static const pw_peer peer = {"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "65535"};
    for (int kind = 0; kind < 3; kind++) {
        pw_limits limits = {.max_head_size = 700, .max_fields = 100};
        char data[800] = "";
        if (kind == 0) { /* the target stands for itself, path and query */
            strcat(data, "A http://a/");
            memset(data + strlen(data), '%', 300);
            strcat(data, "?");
            memset(data + strlen(data), 'q', 300);
            strcat(data, " HTTP/1.1\r\nHost:\r\n\r\n");
        } else { /* as many fields as there may be, with a number and without */
            strcat(data, "A / HTTP/1.1\r\nHost:\r\n");
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
        size_t scanned = 0;
        pw_error error;
        ABOUT("kind %d", kind);
        REQUIRE(pw_head_parse(&limits, data, strlen(data), &scanned, &head, &error) ==
                PW_PARSE_DONE);
        pw_block block = {.at = malloc(pw_block_most(&limits))};
        pw_block_make(&block, &head, &peer, INT64_MAX);
        CHECK(block.size <= pw_block_most(&limits));
        free(block.at);
    }
}

int main(void)
{
    RUN(a_head_becomes_keys_and_values);
    RUN(the_peer_is_named);
    RUN(a_line_alone_has_the_values_of_the_request_line);
    RUN(content_has_its_own_length_whatever_the_fields_say);
    RUN(repeated_fields_are_joined);
    RUN(a_name_with_an_underscore_is_not_that_of_the_known_field);
    RUN(the_authority_of_the_target_replaces_host);
    RUN(the_path_is_decoded_once_and_the_query_never);
    RUN(digits_are_written_in_full);
    RUN(a_block_is_never_larger_than_its_most);
    return check_end();
}
