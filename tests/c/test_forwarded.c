/* csrc/forwarded.c and csrc/trust.c: what a trusted peer says about its client. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "check.h"
#include "fields.h"
#include "forwarded.h"
#include "head.h"
#include "trust.h"

/* 127.0.0.1, ::1, 10.0.0.0/8 and 2001:db8:2::/47 */
static const pw_network networks[] = {
    {PW_NETWORK_V4, 32, {127, 0, 0, 1}},
    {PW_NETWORK_V6, 128, {[15] = 1}},
    {PW_NETWORK_V4, 8, {10}},
    {PW_NETWORK_V6, 47, {0x20, 0x01, 0x0d, (char)0xb8, 0, 2}},
};
static const pw_trust trust = {networks, sizeof networks / sizeof networks[0]};

/* Reads a head with these field lines. Writes "KEY=value|" for each value, or "refused". */
static void values_of(test_text *to, const char *lines)
{
    static const pw_limits limits = {.max_head_size = 65536,
                                     .max_fields = 100,
                                     .underscore_fields = PW_UNDERSCORE_DROP,
                                     .forwarding = PW_FORWARDING_READ};
    static pw_field fields[100];
    pw_head head = {.fields = fields};
    pw_head_progress progress = {0};
    pw_error error;
    pw_forwarded values;
    test_text data = {NULL, 0, 0};
    text_add_string(&data, "GET / HTTP/1.1\r\n");
    if (strstr(lines, "\nHost: ") == NULL && strncmp(lines, "Host: ", 6) != 0)
        text_add_string(&data, "Host: h\r\n");
    text_add_string(&data, lines);
    text_add_string(&data, "\r\n");
    REQUIRE(pw_head_parse(&limits, data.at, data.size, &progress, &head, &error) == PW_PARSE_DONE);
    REQUIRE(head.facts.forwarded);
    text_clear(to);
    if (!pw_forwarded_read(&trust, &head, &values)) {
        text_add(to, LITERAL("refused"));
        text_free(&data);
        return;
    }
    CHECK(values.set & PW_SET_ANY);
    if (values.set & PW_SET_CLIENT) {
        text_add(to, LITERAL("client="));
        text_add_string(to, values.client.address);
        text_add(to, LITERAL("/"));
        text_add_string(to, values.client.port);
        text_add(to, LITERAL("|"));
    }
    if (values.set & PW_SET_SCHEME)
        text_add_string(to, values.set & PW_SET_HTTPS ? "https|" : "http|");
    if (values.set & PW_SET_HOST) {
        text_add(to, LITERAL("host="));
        text_add(to, values.host, values.host_size);
        text_add(to, LITERAL("|"));
    }
    if (values.set & PW_SET_NAME) {
        text_add(to, LITERAL("name="));
        text_add(to, values.host, values.name_size);
        text_add(to, LITERAL("|"));
    }
    if (values.set & PW_SET_PORT) {
        text_add(to, LITERAL("port="));
        text_add_string(to, values.port);
        text_add(to, LITERAL("|"));
    }
    if (values.set & PW_SET_PREFIX) {
        text_add(to, LITERAL("prefix="));
        text_add(to, values.prefix.at, values.prefix.size);
        text_add(to, LITERAL("|"));
    }
    text_free(&data);
}

typedef struct {
    const char *lines, *expected;
} test_pair;

static void check_pairs(const test_pair *pairs, size_t count)
{
    test_text text = {NULL, 0, 0};
    for (size_t i = 0; i < count; i++) {
        ABOUT("%.150s", pairs[i].lines);
        values_of(&text, pairs[i].lines);
        check_bytes(__FILE__, __LINE__, "values", text.at, text.size, pairs[i].expected,
                    strlen(pairs[i].expected));
    }
    ABOUT("%s", "");
    text_free(&text);
}

#define CHECK_PAIRS(pairs) check_pairs((pairs), sizeof(pairs) / sizeof(pairs)[0])
#define XFF(value) "X-Forwarded-For: " value "\r\n"
#define PROTO(value) "X-Forwarded-Proto: " value "\r\n"
#define HOST(value) "X-Forwarded-Host: " value "\r\n"
#define PORT(value) "X-Forwarded-Port: " value "\r\n"
#define PREFIX(value) "X-Forwarded-Prefix: " value "\r\n"
#define FORWARDED(value) "Forwarded: " value "\r\n"

static void the_client_is_the_last_one_that_is_no_trusted_proxy(void)
{
    static const test_pair pairs[] = {
        {XFF("192.0.2.1"), "client=192.0.2.1/|"},
        {XFF("192.0.2.1, 10.1.2.3"), "client=192.0.2.1/|"},
        {XFF("6.6.6.6, 192.0.2.1,10.1.2.3 ,\t127.0.0.1"), "client=192.0.2.1/|"},
        {XFF("6.6.6.6") XFF("192.0.2.1") XFF("10.1.2.3"), "client=192.0.2.1/|"},
        {XFF("10.0.0.1, 10.0.0.2"), "client=10.0.0.1/|"},
        {XFF("127.0.0.2, 127.0.0.1"), "client=127.0.0.2/|"},
        {XFF("192.0.2.1, 2001:db8:3::9, ::1"), "client=192.0.2.1/|"},
        {XFF("192.0.2.1, 2001:db8:4::9"), "client=2001:db8:4::9/|"},
        {XFF("192.0.2.1, ::ffff:10.0.0.1"), "client=192.0.2.1/|"},
        {XFF(",, 192.0.2.1 ,,"), "client=192.0.2.1/|"},
        {XFF(""), ""},
        {XFF(" , "), ""},
        {FORWARDED("for=6.6.6.6, for=192.0.2.1, for=10.0.0.1"), "client=192.0.2.1/|"},
        {FORWARDED("for=6.6.6.6") FORWARDED("for=192.0.2.1") FORWARDED("for=10.0.0.1"),
         "client=192.0.2.1/|"},
        {FORWARDED("for=10.0.0.1, for=10.0.0.2"), "client=10.0.0.1/|"},
        {FORWARDED(",, for=192.0.2.1 ,;"), "client=192.0.2.1/|"},
        {FORWARDED(""), ""},
    };
    CHECK_PAIRS(pairs);
}

static void addresses_have_all_their_forms(void)
{
    static const test_pair pairs[] = {
        {XFF("192.0.2.1:4711"), "client=192.0.2.1/4711|"},
        {XFF("2001:DB8::0:1"), "client=2001:db8::1/|"},
        {XFF("[2001:db8::1]"), "client=2001:db8::1/|"},
        {XFF("[2001:db8::1]:65535"), "client=2001:db8::1/65535|"},
        {XFF("unknown"), "client=/|"},
        {XFF("Unknown:80"), "client=/|"},
        {XFF("_hidden"), "client=/|"},
        {XFF("192.0.2.1, unknown, 10.0.0.1"), "client=/|"},
        {FORWARDED("for=192.0.2.1"), "client=192.0.2.1/|"},
        {FORWARDED("For=\"192.0.2.1:4711\""), "client=192.0.2.1/4711|"},
        {FORWARDED("for=\"[2001:db8::1]\""), "client=2001:db8::1/|"},
        {FORWARDED("FOR=\"[2001:db8::1]:80\""), "client=2001:db8::1/80|"},
        {FORWARDED("for=\"192.0.2.\\1\""), "client=192.0.2.1/|"},
        {FORWARDED("for=unknown"), "client=/|"},
        {FORWARDED("for=\"unknown:80\""), "client=/|"},
        {FORWARDED("for=_SEVKISEK"), "client=/|"},
        {FORWARDED("for=\"_a.b_-c:_port\""), "client=/|"},
        {FORWARDED("for=\"192.0.2.1:_port\""), "client=192.0.2.1/|"},
        {FORWARDED("for=192.0.2.1, for=_hidden, for=10.0.0.1"), "client=/|"},
        {FORWARDED("for=192.0.2.1, proto=http"), "http|port=80|"},
    };
    CHECK_PAIRS(pairs);
}

static void a_malformed_address_is_refused(void)
{
    static const char *const nodes[] = {
        "nonsense",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1:080",
        "192.0.2.1:x",
        "192.0.2.1 x",
        "[2001:db8::1",
        "[192.0.2.1]",
        "[2001:db8::1]80",
        "[2001:db8::1]:",
        "[]",
        "[::1%lo]",
        ":80",
        "_",
        "_a!",
        "[unknown]",
        "2001:db8:::1",
        "-",
        "unknown:x",
        "192.0.2.1:100000",
        "::1]:80",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "192.0.2.1\xff",
        "\xff",
    };
    char lines[200];
    test_text text = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof nodes / sizeof nodes[0]; i++) {
        static const char *const forms[] = {
            XFF("%s"),
            XFF("192.0.2.1, %s"),
            XFF("%s, 10.0.0.1"),
            FORWARDED("for=\"%s\""),
            FORWARDED("for=\"%s\", for=10.0.0.1"),
        };
        for (size_t k = 0; k < sizeof forms / sizeof forms[0]; k++) {
            snprintf(lines, sizeof lines, forms[k], nodes[i]);
            ABOUT("%s", lines);
            values_of(&text, lines);
            CHECK_TEXT(&text, "refused");
        }
        /* Before the client's address it was not written by a trusted proxy. */
        snprintf(lines, sizeof lines, XFF("%s, 192.0.2.1"), nodes[i]);
        ABOUT("%s", lines);
        values_of(&text, lines);
        CHECK_TEXT(&text, "client=192.0.2.1/|");
    }
    ABOUT("%s", "");
    text_free(&text);
}

static void forwarded_is_refused_if_its_syntax_is_wrong(void)
{
    static const char *const wrong[] = {
        "for",
        "for=",
        "=192.0.2.1",
        "for =192.0.2.1",
        "for= 192.0.2.1",
        "for=192.0.2.1 proto=http",
        "for=192.0.2.1:80",
        "for=[2001:db8::1]",
        "for=\"2001:db8::1\"",
        "for=\"192.0.2.1",
        "for=\"192.0.2.1\\",
        "for=\"192.0.2.1\"x",
        "for=\"\"",
        "for=192.0.2.1;for=192.0.2.1",
        "proto=http;host=a;proto=http",
        "for=192.0.2.1;by=_a;by=_b",
        "proto=ftp",
        "proto=\"\"",
        "host=\"a b\"",
        "host=\"a:x\"",
        "host=\"a:0\"",
        "host=\"\"",
        "f\xfcr=1",
        "for=\", for=192.0.2.1",
    };
    char lines[200];
    test_text text = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(lines, sizeof lines, FORWARDED("%s"), wrong[i]);
        ABOUT("%s", wrong[i]);
        values_of(&text, lines);
        CHECK_TEXT(&text, "refused");
    }
    ABOUT("%s", "");
    text_free(&text);
}

static void the_element_of_the_client_has_its_scheme_and_host(void)
{
    static const test_pair pairs[] = {
        {FORWARDED("for=192.0.2.1;proto=https;host=example.com;by=_p;secret=x"),
         "client=192.0.2.1/|https|host=example.com|name=example.com|port=443|"},
        {FORWARDED("by=10.0.0.9 ; Proto=\"HTTPS\" ;; for=192.0.2.1"),
         "client=192.0.2.1/|https|port=443|"},
        {FORWARDED("for=6.6.6.6;proto=http;host=evil, for=192.0.2.1;proto=https;host=\"a:8443\", "
                   "for=10.0.0.1;proto=http;host=inner"),
         "client=192.0.2.1/|https|host=a:8443|name=a|port=8443|"},
        {FORWARDED("for=192.0.2.1, for=10.0.0.1;proto=https"), "client=192.0.2.1/|"},
        {FORWARDED("proto=https;host=\"[2001:db8::1]:444\""),
         "https|host=[2001:db8::1]:444|name=[2001:db8::1]|port=444|"},
        {FORWARDED("proto=wss"), "https|port=443|"},
        {FORWARDED("by=unknown"), ""},
        {FORWARDED("for=\"6.6.6.6\\\"\", for=192.0.2.1"), "client=192.0.2.1/|"},
        {FORWARDED("for=6.6.6.6;a=\"x, for=10.0.0.1\", for=192.0.2.1"), "client=192.0.2.1/|"},
    };
    CHECK_PAIRS(pairs);
}

static void the_other_x_forwarded_fields_have_one_value(void)
{
    static const test_pair pairs[] = {
        {PROTO("https"), "https|port=443|"},
        {PROTO("HTTP"), "http|port=80|"},
        {PROTO("ws"), "http|port=80|"},
        {PROTO("https, https"), "https|port=443|"},
        {PROTO("https") PROTO("https"), "https|port=443|"},
        {PROTO(""), ""},
        {PROTO("https, http"), "refused"},
        {PROTO("https") PROTO("http"), "refused"},
        {PROTO("ftp"), "refused"},
        {PROTO("http, ftp"), "refused"},
        {HOST("example.com"), "host=example.com|name=example.com|port=80|"},
        {HOST("example.com:8080"), "host=example.com:8080|name=example.com|port=8080|"},
        {HOST("example.com:"), "host=example.com|name=example.com|port=80|"},
        {HOST("[::1]"), "host=[::1]|name=[::1]|port=80|"},
        {HOST("a, a"), "host=a|name=a|port=80|"},
        {HOST("a, b"), "refused"},
        {HOST("a") HOST("b"), "refused"},
        {HOST("a/b"), "refused"},
        {HOST("a:99999"), "refused"},
        {HOST("user@a"), "refused"},
        {PORT("8080"), "host=h:8080|port=8080|"},
        {PORT("80"), "port=80|"},
        {PORT("80, 80"), "port=80|"},
        {PORT("80, 81"), "refused"},
        {PORT("0"), "refused"},
        {PORT("65536"), "refused"},
        {PORT("-1"), "refused"},
        {PROTO("https") PORT("443"), "https|port=443|"},
        {PROTO("https") PORT("80"), "https|host=h:80|port=80|"},
        {PROTO("https") PORT("8443") HOST("a"), "https|host=a:8443|name=a|port=8443|"},
        {PROTO("https") PORT("8443") HOST("a:8443"), "https|host=a:8443|name=a|port=8443|"},
        {PROTO("https") PORT("8443") HOST("a:8444"), "refused"},
        {PROTO("https") PORT("443") HOST("[::1]"), "https|host=[::1]|name=[::1]|port=443|"},
        {PORT("81") HOST("[::1]"), "host=[::1]:81|name=[::1]|port=81|"},
        {"Host: h:8080\r\n" PROTO("https"), "https|port=8080|"},
        {"Host: h:8080\r\n" PORT("443"), "port=443|"},
        {"Host: [::1]\r\n" PORT("81"), "host=[::1]:81|port=81|"},
    };
    CHECK_PAIRS(pairs);
}

static void a_prefix_is_a_path(void)
{
    static const test_pair pairs[] = {
        {PREFIX("/app"), "prefix=/app|"},
        {PREFIX("/app/"), "prefix=/app|"},
        {PREFIX("/a/b.c/~d:e@f"), "prefix=/a/b.c/~d:e@f|"},
        {PREFIX("/"), "prefix=|"},
        {PREFIX("/app, /app/"), "prefix=/app|"},
        {PREFIX("/app, /other"), "refused"},
        {PREFIX("app"), "refused"},
        {PREFIX("//evil.com"), "refused"},
        {PREFIX("/a//b"), "refused"},
        {PREFIX("/a//"), "refused"},
        {PREFIX("//"), "refused"},
        {PREFIX("/a/../b"), "refused"},
        {PREFIX("/."), "refused"},
        {PREFIX("/.."), "refused"},
        {PREFIX("/..."), "prefix=/...|"},
        {PREFIX("/a%20b"), "refused"},
        {PREFIX("/a?b"), "refused"},
        {PREFIX("/a b"), "refused"},
        {PREFIX("/a\\b"), "refused"},
        {PREFIX("/\xe4"), "refused"},
        {PREFIX("http://a/b"), "refused"},
    };
    CHECK_PAIRS(pairs);
}

static void both_forms_must_agree(void)
{
    static const test_pair pairs[] = {
        {FORWARDED("for=192.0.2.1;proto=https;host=a") XFF("192.0.2.1") PROTO("https") HOST("a"),
         "client=192.0.2.1/|https|host=a|name=a|port=443|"},
        {FORWARDED("for=\"192.0.2.1:80\"") XFF("192.0.2.1"), "client=192.0.2.1/80|"},
        {FORWARDED("for=192.0.2.1") XFF("192.0.2.1:80"), "client=192.0.2.1/80|"},
        {FORWARDED("for=\"192.0.2.1:80\"") XFF("192.0.2.1:81"), "refused"},
        {FORWARDED("for=192.0.2.1") XFF("192.0.2.2"), "refused"},
        {FORWARDED("for=192.0.2.1") XFF("unknown"), "refused"},
        {FORWARDED("for=unknown") XFF("_x"), "client=/|"},
        {FORWARDED("for=\"[2001:db8::1]\"") XFF("2001:DB8:0::1"), "client=2001:db8::1/|"},
        {FORWARDED("for=192.0.2.1") PROTO("https"), "client=192.0.2.1/|https|port=443|"},
        {FORWARDED("proto=http") PROTO("https"), "refused"},
        {FORWARDED("host=a") HOST("b"), "refused"},
        {FORWARDED("host=a") XFF("192.0.2.1") PORT("81"),
         "client=192.0.2.1/|host=a:81|name=a|port=81|"},
    };
    CHECK_PAIRS(pairs);
}

static void long_values_are_refused_from_one_byte_on(void)
{
    char value[PW_PREFIX_MOST + 2], lines[PW_PREFIX_MOST + 100];
    test_text text = {NULL, 0, 0};
    static const struct {
        const char *form;
        size_t most;
    } cases[] = {
        {HOST("%s:65535"), PW_HOST_MOST},
        {FORWARDED("host=\"%s:65535\""), PW_HOST_MOST},
        {"Host: %s\r\n" PORT("65535"), PW_HOST_MOST},
        {PREFIX("/%s"), PW_PREFIX_MOST - 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t more = 0; more < 2; more++) {
            memset(value, 'a', sizeof value);
            value[cases[i].most + more] = '\0';
            snprintf(lines, sizeof lines, cases[i].form, value);
            ABOUT("case %zu, %zu more", i, more);
            values_of(&text, lines);
            CHECK((text.size == 7 && memcmp(text.at, "refused", 7) == 0) == (more == 1));
        }
    ABOUT("%s", "");
    text_free(&text);
}

static void only_the_six_fields_are_forwarded(void)
{
    int count = 0;
    for (int number = 0; pw_key(number) != NULL; number++)
        count += pw_is_forwarded((uint8_t)number);
    CHECK_INT(count, 6);
    CHECK(!pw_is_forwarded(PW_OTHER_NAME));
    CHECK(pw_is_forwarded(pw_field_number(LITERAL("Forwarded"))));
    CHECK(pw_is_forwarded(pw_field_number(LITERAL("X-Forwarded-Prefix"))));
    CHECK(!pw_is_forwarded(pw_field_number(LITERAL("X-Forwarded-Server"))));
    CHECK(!pw_is_forwarded(pw_field_number(LITERAL("Cookie"))));
}

static void the_limits_say_what_becomes_of_the_fields(void)
{
    static const char data[] = "GET / HTTP/1.1\r\nForwarded: for=x\r\nHost: h\r\n" XFF("a")
        PROTO("b") "Accept: c\r\n" HOST("d") PORT("e") PREFIX("f") "\r\n";
    static pw_field fields[100];
    for (int forwarding = PW_FORWARDING_NONE; forwarding <= PW_FORWARDING_DROP; forwarding++) {
        pw_limits limits = {
            .max_head_size = 65536, .max_fields = 100, .forwarding = (pw_forwarding)forwarding};
        pw_head head = {.fields = fields};
        pw_head_progress progress = {0};
        pw_error error;
        REQUIRE(pw_head_parse(&limits, LITERAL(data), &progress, &head, &error) == PW_PARSE_DONE);
        CHECK_INT(head.facts.forwarded, forwarding == PW_FORWARDING_READ);
        bool drops = forwarding == PW_FORWARDING_DROP;
        CHECK_INT(head.field_count, drops ? 2 : 8);
        CHECK_INT(head.fields[drops ? 0 : 1].number, PW_KEY_HOST);
        CHECK_BYTES(head.fields[drops ? 1 : 4].value.at, 1, "c");
    }
}

static pw_address v4(const char *text)
{
    struct sockaddr_in peer = {.sin_family = AF_INET};
    REQUIRE(inet_pton(AF_INET, text, &peer.sin_addr) == 1);
    return pw_address_of((struct sockaddr *)&peer);
}

static pw_address v6(const char *text)
{
    struct sockaddr_in6 peer = {.sin6_family = AF_INET6};
    REQUIRE(inet_pton(AF_INET6, text, &peer.sin6_addr) == 1);
    return pw_address_of((struct sockaddr *)&peer);
}

static bool trusts(pw_network network, pw_address address)
{
    const pw_trust one = {&network, 1};
    return pw_trusts(&one, &address);
}

static void a_network_has_the_addresses_that_begin_with_its_bits(void)
{
    const pw_network nine = {PW_NETWORK_V4, 9, {10, (char)0x80}};
    CHECK(trusts(nine, v4("10.128.0.0")));
    CHECK(trusts(nine, v4("10.255.255.255")));
    CHECK(!trusts(nine, v4("10.127.255.255")));
    CHECK(!trusts(nine, v4("11.128.0.0")));
    CHECK(trusts(nine, v6("::ffff:10.200.0.1")));
    CHECK(!trusts(nine, v6("a80::")));
    const pw_network all_v4 = {PW_NETWORK_V4, 0, {0}}, all_v6 = {PW_NETWORK_V6, 0, {0}};
    CHECK(trusts(all_v4, v4("192.0.2.1")) && !trusts(all_v4, v6("::1")));
    CHECK(trusts(all_v6, v6("::1")) && !trusts(all_v6, v4("192.0.2.1")));
    const pw_network one = {PW_NETWORK_V6, 128, {[15] = 1}};
    CHECK(trusts(one, v6("::1")) && !trusts(one, v6("::2")) && !trusts(one, v6("8000::1")));
}

static void a_unix_socket_has_no_address(void)
{
    struct sockaddr_un peer = {.sun_family = AF_UNIX};
    pw_address local = pw_address_of((struct sockaddr *)&peer);
    const pw_network unix_sockets = {.kind = PW_NETWORK_UNIX}, all = {.kind = PW_NETWORK_ALL};
    CHECK(trusts(unix_sockets, local) && !trusts(unix_sockets, v4("127.0.0.1")));
    CHECK(trusts(all, local) && trusts(all, v4("192.0.2.1")) && trusts(all, v6("2001:db8::1")));
    CHECK(!pw_trusts(&trust, &local));
    const pw_trust no_peer = {&all, 0};
    CHECK(!pw_trusts(&no_peer, &local));
}

int main(void)
{
    RUN(the_client_is_the_last_one_that_is_no_trusted_proxy);
    RUN(addresses_have_all_their_forms);
    RUN(a_malformed_address_is_refused);
    RUN(forwarded_is_refused_if_its_syntax_is_wrong);
    RUN(the_element_of_the_client_has_its_scheme_and_host);
    RUN(the_other_x_forwarded_fields_have_one_value);
    RUN(a_prefix_is_a_path);
    RUN(both_forms_must_agree);
    RUN(long_values_are_refused_from_one_byte_on);
    RUN(only_the_six_fields_are_forwarded);
    RUN(the_limits_say_what_becomes_of_the_fields);
    RUN(a_network_has_the_addresses_that_begin_with_its_bits);
    RUN(a_unix_socket_has_no_address);
    return check_end();
}
