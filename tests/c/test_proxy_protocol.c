/* csrc/proxy_protocol.c: the header with which a proxy names its client. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "outcome.h"
#include "proxy_protocol.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define REQUEST "GET / HTTP/1.1\r\n\r\n"

/* Reads data[0, size), from memory of exactly that size. Writes the result as text. */
static pw_parse read_header(test_text *to, const char *data, size_t size)
{
    static const char *const errors[] = {
        [PW_PROXY_VALID] = "valid",
        [PW_PROXY_MISSING] = "missing",
        [PW_PROXY_MALFORMED] = "malformed",
        [PW_PROXY_LONG] = "long",
    };
    pw_proxy_header header;
    pw_proxy_error error;
    char *copy = malloc(size + (size == 0)), line[256];
    REQUIRE(copy != NULL);
    memcpy(copy, data, size);
    pw_parse outcome = pw_proxy_read(copy, size, &header, &error);
    free(copy);
    text_clear(to);
    const pw_proxied *found = &header.addresses;
    switch (outcome) {
    case PW_PARSE_MORE:
        text_add_string(to, "more");
        break;
    case PW_PARSE_ERROR:
        text_add_string(to, errors[error]);
        break;
    case PW_PARSE_DONE:
        REQUIRE(error == PW_PROXY_VALID && header.size <= size && header.size > 0);
        if (!header.has_addresses)
            snprintf(line, sizeof line, "%zu", header.size);
        else if (found->source.kind == PW_NETWORK_UNIX)
            snprintf(line, sizeof line, "%zu unix", header.size);
        else
            snprintf(line, sizeof line, "%zu v%d %s %s to %s %s", header.size, found->source.kind,
                     found->client.address, found->client.port, found->server.address,
                     found->server.port);
        text_add_string(to, line);
        break;
    }
    return outcome;
}

static bool is_text(const test_text *text, const char *expected)
{
    return text->size == strlen(expected) && memcmp(text->at, expected, text->size) == 0;
}

/*
 * Checks the result for the data, and for each beginning of it. As the connection receives more bytes,
 * the result is "more" for a while, and then the final one.
 */
static void check_result(const char *data, size_t size, const char *expected)
{
    static test_text text;
    bool is_final = false;
    for (size_t part = 0; part <= size; part++) {
        pw_parse outcome = read_header(&text, data, part);
        if (outcome == PW_PARSE_MORE)
            CHECK(!is_final);
        else
            is_final = true;
        if (is_final || part == size)
            REQUIRE(check_bytes(__FILE__, __LINE__, "result", text.at, text.size, expected,
                                strlen(expected)));
    }
}

/* The same with a request after the header. */
static void check_header(const char *data, size_t size, const char *expected)
{
    test_text text = {NULL, 0, 0};
    text_add(&text, data, size);
    check_result(text.at, text.size, expected);
    text_add(&text, LITERAL(REQUEST));
    check_result(text.at, text.size, expected);
    text_free(&text);
}

static void check_line(const char *line, const char *expected)
{
    ABOUT("%s", line);
    check_header(line, strlen(line), expected);
    ABOUT("%s", "");
}

/* ------------------------------------------------------------------ version 1 */

static void version_1_names_both_ends(void)
{
    check_line("PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n",
               "44 v4 192.0.2.1 4711 to 198.51.100.2 443");
    check_line("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
               "44 v4 0.0.0.0 0 to 255.255.255.255 65535");
    check_line("PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 4711 80\r\n",
               "53 v6 2001:db8::1 4711 to 2001:db8::2 80");
    check_line("PROXY TCP6 :: ::1 1 2\r\n", "23 v6 :: 1 to ::1 2");
    /* HAProxy sends this if only one of the two is an IPv6 address. */
    check_line("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n",
               "45 v4 ::ffff:192.0.2.1 1 to 2001:db8::2 2");
    check_line("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
               "104 v6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 to "
               "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535");
}

static void version_1_with_an_unknown_client_has_no_addresses(void)
{
    check_line("PROXY UNKNOWN\r\n", "15");
    check_line("PROXY UNKNOWN \r\n", "16");
    check_line("PROXY UNKNOWN any \x01\xff text, TCP4 1.2.3.4\r\n", "41");
    check_line("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "59");
}

static void version_1_has_at_most_107_bytes(void)
{
    char line[120];
    for (int size = 100; size <= 110; size++) {
        char expected[16];
        memset(line, 'x', sizeof line);
        memcpy(line, LITERAL("PROXY UNKNOWN "));
        memcpy(line + size - 2, "\r\n", 3);
        snprintf(expected, sizeof expected, "%d", size);
        check_line(line, size <= PW_PROXY_V1_MOST ? expected : "malformed");
    }
    memset(line, 'x', sizeof line);
    memcpy(line, LITERAL("PROXY TCP4 "));
    check_result(line, PW_PROXY_V1_MOST - 1, "more");
    check_result(line, PW_PROXY_V1_MOST, "malformed");
}

static void version_1_has_a_strict_grammar(void)
{
    static const char *const lines[] = {
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 \r\n",
        "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2  1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1  2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
        "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r2\r\n",
        "PROXY TCP4 192.0.2.1\n192.0.2.2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP46 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN\tx\r\n",
        "PROXY unknown\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 2001:db8::2 1 2\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        size_t size = strlen(lines[i]);
        ABOUT("%s", lines[i]);
        if (lines[i][size - 1] == '\r')
            check_result(lines[i], size, "more");
        else
            check_header(lines[i], size, "malformed");
    }
    ABOUT("%s", "");
    check_result(LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rG"), "malformed");
    check_result(LITERAL("PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n"), "malformed");
    check_result(LITERAL("PROXY TCP6 ::1\0 ::2 1 2\r\n"), "malformed");
}

static void a_malformed_address_or_port_is_refused(void)
{
    static const char *const v4[] = {
        "1.2.3",  "1.2.3.4.5", "1.2.3.256", "1.2.3.04", "1.2.3.-4",          "1.2.3.",  ".1.2.3",
        "1..2.3", "0x1.2.3.4", "1.2.3.4x",  "16909060", "1.2.3.99999999999", "+1.2.3.4"};
    static const char *const v6[] = {"::1%lo",
                                     "[::1]",
                                     ":::",
                                     "1:2:3:4:5:6:7",
                                     "1:2:3:4:5:6:7:8:9",
                                     "::fffff",
                                     "g::",
                                     ":1",
                                     "1::2::3",
                                     "::1.2.3",
                                     "::1.2.3.4.5",
                                     "0000:0000:0000:0000:0000:0000:0000:0000:0000:0"};
    static const char *const ports[] = {"65536", "-1", "+1",          "01", "00",
                                        "x",     "1x", "99999999999", "0x1"};
    char line[200];
    for (size_t i = 0; i < sizeof v4 / sizeof v4[0]; i++) {
        snprintf(line, sizeof line, "PROXY TCP4 %s 192.0.2.1 1 2\r\n", v4[i]);
        check_line(line, "malformed");
        snprintf(line, sizeof line, "PROXY TCP4 192.0.2.1 %s 1 2\r\n", v4[i]);
        check_line(line, "malformed");
    }
    for (size_t i = 0; i < sizeof v6 / sizeof v6[0]; i++) {
        snprintf(line, sizeof line, "PROXY TCP6 %s ::1 1 2\r\n", v6[i]);
        check_line(line, "malformed");
        snprintf(line, sizeof line, "PROXY TCP6 ::1 %s 1 2\r\n", v6[i]);
        check_line(line, "malformed");
    }
    for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
        snprintf(line, sizeof line, "PROXY TCP4 192.0.2.1 192.0.2.2 %s 2\r\n", ports[i]);
        check_line(line, "malformed");
        snprintf(line, sizeof line, "PROXY TCP6 ::1 ::2 1 %s\r\n", ports[i]);
        check_line(line, "malformed");
    }
}

/* ------------------------------------------------------------------ version 2 */

/* A header with this version and command, family and transport, and `length` bytes of which the first
 * ones are given. Of a header that is too long, only the beginning. */
static void make_v2(test_text *to, int command, int family, size_t length, const char *bytes,
                    size_t size)
{
    const char head[] = {(char)command, (char)family, (char)(length >> 8), (char)(length & 255)};
    text_clear(to);
    text_add(to, LITERAL(V2));
    text_add(to, head, sizeof head);
    text_add(to, bytes, size < length ? size : length);
    while (to->size < PW_PROXY_V2_HEAD + length && to->size < PW_PROXY_MOST + 10)
        text_add(to, "\xee", 1);
}

#define INET_BYTES                                                                                 \
    "\xc0\0\2\1"                                                                                   \
    "\xc6\x33\x64\2"                                                                               \
    "\x12\x67"                                                                                     \
    "\1\xbb"
#define INET6_BYTES                                                                                \
    "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"                                                       \
    "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2"                                                       \
    "\x12\x67"                                                                                     \
    "\1\xbb"

static void check_v2(int command, int family, size_t length, const char *bytes, size_t size,
                     const char *expected)
{
    test_text header = {NULL, 0, 0};
    ABOUT("command %x, family %x, length %zu", (unsigned)command, (unsigned)family, length);
    make_v2(&header, command, family, length, bytes, size);
    check_header(header.at, header.size, expected);
    ABOUT("%s", "");
    text_free(&header);
}

static void version_2_names_both_ends(void)
{
    for (int transport = 1; transport <= 2; transport++) {
        check_v2(0x21, 0x10 + transport, 12, LITERAL(INET_BYTES),
                 "28 v4 192.0.2.1 4711 to 198.51.100.2 443");
        check_v2(0x21, 0x20 + transport, 36, LITERAL(INET6_BYTES),
                 "52 v6 2001:db8::1 4711 to 2001:db8::2 443");
        check_v2(0x21, 0x30 + transport, 216, LITERAL("/a"), "232 unix");
    }
    check_v2(0x21, 0x21, 36, LITERAL("\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1"),
             "52 v4 ::ffff:192.0.2.1 61166 to eeee:eeee:eeee:eeee:eeee:eeee:eeee:eeee 61166");
}

static void version_2_may_have_tlvs_up_to_a_bound(void)
{
    const size_t most = PW_PROXY_MOST - PW_PROXY_V2_HEAD;
    check_v2(0x21, 0x11, 13, LITERAL(INET_BYTES), "29 v4 192.0.2.1 4711 to 198.51.100.2 443");
    check_v2(0x21, 0x11, 300, LITERAL(INET_BYTES), "316 v4 192.0.2.1 4711 to 198.51.100.2 443");
    check_v2(0x21, 0x11, most, LITERAL(INET_BYTES), "4096 v4 192.0.2.1 4711 to 198.51.100.2 443");
    check_v2(0x21, 0x11, most + 1, LITERAL(INET_BYTES), "long");
    check_v2(0x21, 0x11, 65535, LITERAL(INET_BYTES), "long");
    check_v2(0x20, 0, most, LITERAL(""), "4096");
    check_v2(0x20, 0, most + 1, LITERAL(""), "long");
    check_v2(0x21, 0x00, most + 1, LITERAL(""), "long");
}

static void version_2_without_a_client_has_no_addresses(void)
{
    check_v2(0x20, 0x00, 0, LITERAL(""), "16");
    check_v2(0x20, 0x11, 12, LITERAL(INET_BYTES), "28"); /* LOCAL: the addresses do not count */
    check_v2(0x20, 0x11, 3, LITERAL(INET_BYTES), "19");
    check_v2(0x20, 0xff, 5, LITERAL(""), "21");
    check_v2(0x21, 0x00, 0, LITERAL(""), "16");
    check_v2(0x21, 0x00, 20, LITERAL(""), "36");
}

static void version_2_refuses_other_versions_commands_and_families(void)
{
    for (int command = 0; command < 256; command++)
        if (command != 0x20 && command != 0x21)
            check_v2(command, 0x11, 12, LITERAL(INET_BYTES), "malformed");
    for (int family = 0; family < 256; family++) {
        int kind = family >> 4, transport = family & 15;
        bool is_known = family == 0 || (kind >= 1 && kind <= 3 && transport >= 1 && transport <= 2);
        if (!is_known)
            check_v2(0x21, family, 216, LITERAL(""), "malformed");
    }
}

static void version_2_has_room_for_its_addresses(void)
{
    static const struct {
        int family;
        size_t least;
    } families[] = {{0x11, 12}, {0x12, 12}, {0x21, 36}, {0x22, 36}, {0x31, 216}, {0x32, 216}};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        for (size_t length = 0; length < families[i].least; length++)
            check_v2(0x21, families[i].family, length, LITERAL(""), "malformed");
}

/* ------------------------------------------------------------------ both */

static void other_bytes_are_no_header(void)
{
    static const char *const others[] = {REQUEST,
                                         "POST / HTTP/1.1\r\n\r\n",
                                         "PROPFIND / HTTP/1.1\r\n",
                                         "PROXY: x\r\n",
                                         "PROXYX ",
                                         "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
                                         " PROXY UNKNOWN\r\n",
                                         "\r\nGET / HTTP/1.1\r\n",
                                         "\r\n\r\nPROXY UNKNOWN\r\n",
                                         "\r\n\r\n\r\nQUIT\n",
                                         "\x16\x03\x01"};
    test_text text = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        check_line(others[i], "missing");
    CHECK_INT(read_header(&text, "", 0), PW_PARSE_MORE);
    check_result(LITERAL("PROXY"), "more");
    check_result(LITERAL(V2), "more");
    check_result(LITERAL("\r\n\r\n\0\r\nQUIT\r\n"), "missing");
    text_free(&text);
}

/* Any change of one byte gives a result that does not depend on the split either. */
static void any_changed_byte_has_one_result(void)
{
    static const char line[] = "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n" REQUEST;
    test_text header = {NULL, 0, 0}, text = {NULL, 0, 0};
    int valid = 0;
    for (int version = 1; version <= 2; version++) {
        if (version == 1)
            text_add(&header, LITERAL(line));
        else
            make_v2(&header, 0x21, 0x21, 40, LITERAL(INET6_BYTES));
        for (size_t at = 0; at < header.size; at++) {
            const char before = header.at[at];
            for (int value = 0; value < 256; value++) {
                header.at[at] = (char)value;
                ABOUT("version %d, byte %zu is %d", version, at, value);
                valid += read_header(&text, header.at, header.size) == PW_PARSE_DONE;
                char expected[256] = "";
                memcpy(expected, text.at, text.size < 255 ? text.size : 255);
                check_result(header.at, header.size, expected);
            }
            header.at[at] = before;
        }
    }
    ABOUT("%s", "");
    CHECK(valid > 1000);
    CHECK(is_text(&text, "56 v6 2001:db8::1 4711 to 2001:db8::2 443"));
    text_free(&header);
    text_free(&text);
}

int main(void)
{
    RUN(version_1_names_both_ends);
    RUN(version_1_with_an_unknown_client_has_no_addresses);
    RUN(version_1_has_at_most_107_bytes);
    RUN(version_1_has_a_strict_grammar);
    RUN(a_malformed_address_or_port_is_refused);
    RUN(version_2_names_both_ends);
    RUN(version_2_may_have_tlvs_up_to_a_bound);
    RUN(version_2_without_a_client_has_no_addresses);
    RUN(version_2_refuses_other_versions_commands_and_families);
    RUN(version_2_has_room_for_its_addresses);
    RUN(other_bytes_are_no_header);
    RUN(any_changed_byte_has_one_result);
    return check_end();
}
