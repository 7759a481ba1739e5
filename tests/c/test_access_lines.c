/* csrc/access.c alone: the text that each atom of a format makes of a request and a response. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "access.h"
#include "alloc.h"
#include "check.h"

enum { FIELDS_MOST = 8, DELAY_MS = 100, WRITTEN_AT = 65536, VALUE_MOST = 2048 };

static pw_server *server;
static test_text program;
static pw_field fields[FIELDS_MOST];
static pw_head head;
static pw_peer peer;
static pw_text text; /* the program after the request */
static int file;

static void add_atom(int code, const char *data, size_t size)
{
    const char start[] = {(char)code, (char)(size >> 8), (char)(size & 255)};
    text_add(&program, start, sizeof start);
    text_add(&program, data, size);
    server->access.program = program.at;
    server->access.program_size = program.size;
    server->access.wants_head |= code == PW_ATOM_RESPONSE_FIELD;
}

#define ATOM(code, data) add_atom((code), LITERAL(data))

static void begin(bool json)
{
    server = calloc(1, sizeof *server);
    REQUIRE(server != NULL);
    file = memfd_create("log", MFD_CLOEXEC);
    REQUIRE(file >= 0);
    server->access.fd = file;
    server->access.json = json;
    server->timers.now = 5000;
    memset(fields, 0, sizeof fields);
    head = (pw_head){.fields = fields, .facts.minor = 1};
    peer = (pw_peer){"", ""};
    text = (pw_text){NULL, 0, 0};
    text_clear(&program);
}

static void end(void)
{
    pw_free(server->access.lines.at);
    free(server);
    pw_free(text.at);
    close(file);
}

static pw_span span(const char *string)
{
    return (pw_span){string, strlen(string)};
}

static void add_field(const char *name, const char *value)
{
    REQUIRE(head.field_count < FIELDS_MOST);
    fields[head.field_count++] = (pw_field){.name = span(name), .value = span(value)};
}

static const pw_access_facts nothing = {.status = 200};

/* The line of a request and its response, without the LF. */
static const pw_text *line_of(const char *response_head, const pw_access_facts *what)
{
    pw_access_request(server, &text, &head, &peer);
    pw_access_head(server, &text, response_head, strlen(response_head));
    server->access.lines.size = 0;
    pw_access_line(server, text.at, text.size, what);
    pw_text *lines = &server->access.lines;
    REQUIRE(lines->size > 0 && lines->at[lines->size - 1] == '\n');
    lines->size--;
    return lines;
}

#define CHECK_LINE(head, what, expected)                                                           \
    do {                                                                                           \
        const pw_text *line = line_of((head), (what));                                             \
        CHECK_BYTES(line->at, line->size, expected);                                               \
    } while (0)

static void each_atom_of_a_request_has_its_value(void)
{
    static const int atoms[] = {PW_ATOM_ADDRESS, PW_ATOM_METHOD, PW_ATOM_TARGET,
                                PW_ATOM_PATH,    PW_ATOM_QUERY,  PW_ATOM_PROTOCOL};
    begin(false);
    for (size_t i = 0; i < sizeof atoms / sizeof atoms[0]; i++) {
        ATOM(PW_ATOM_LITERAL, "|");
        ATOM(atoms[i], "");
    }
    CHECK_LINE("", &nothing, "|-|-|-|-|-|HTTP/1.1");
    head.method = span("GET");
    head.target = span("/a?b");
    head.path = span("/a");
    head.query = span("b");
    head.facts.minor = 0;
    strcpy(peer.address, "127.0.0.1");
    CHECK_LINE("", &nothing, "|127.0.0.1|GET|/a?b|/a|b|HTTP/1.0");
    end();
}

static void a_field_is_found_by_its_whole_name_in_any_case(void)
{
    begin(false);
    ATOM(PW_ATOM_FIELD, "x-ab");
    CHECK_LINE("", &nothing, "-");
    add_field("X-A", "shorter");
    add_field("X-ABC", "longer");
    add_field("X-AC", "other");
    add_field("Y-AB", "another");
    CHECK_LINE("", &nothing, "-");
    add_field("X-aB", "one");
    add_field("x-ab", "two");
    CHECK_LINE("", &nothing, "one");
    end();
}

static void the_user_is_that_of_basic_authentication(void)
{
    static const struct {
        const char *value, *expected;
    } cases[] = {
        {"Basic YW5uYTpzZWNyZXQ=", "anna"}, /* anna:secret */
        {"bAsIc YW5uYTpzZWNyZXQ=", "anna"},
        {"Basic YTo=", "a"},     /* a: */
        {"Basic Og==", "-"},     /* : */
        {"Basic YW5uYQ==", "-"}, /* no colon */
        {"Basic ", "-"},
        {"Basi", "-"},
        {"Bearer YW5uYTpzZWNyZXQ=", "-"},
        {"Basic!YW5uYTpzZWNyZXQ=", "-"},
        {"Basic YW5u*YTpzZWNyZXQ=", "-"},
        {"Basic +/+/Og==", "\\xfb\\xff\\xbf"},
        {"Basic MDEyMzQ1Njc4OTpw", "0123456789"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("%s", cases[i].value);
        begin(false);
        ATOM(PW_ATOM_USER, "");
        add_field("Authorization", cases[i].value);
        const pw_text *line = line_of("", &nothing);
        check_bytes(__FILE__, __LINE__, "line", line->at, line->size, cases[i].expected,
                    strlen(cases[i].expected));
        end();
    }
}

static void a_user_of_255_bytes_is_named_and_a_longer_one_is_not(void)
{
    for (size_t size = 253; size <= 258; size++) {
        static const char letters[] =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        char plain[300], coded[500] = "Basic ";
        memset(plain, 'u', sizeof plain);
        plain[size] = ':';
        size_t at = 6;
        for (size_t i = 0; i + 3 <= (size + 3) / 3 * 3; i += 3) {
            uint32_t bits =
                (uint32_t)plain[i] << 16 | (uint32_t)plain[i + 1] << 8 | (uint32_t)plain[i + 2];
            for (int shift = 18; shift >= 0; shift -= 6)
                coded[at++] = letters[bits >> shift & 63];
        }
        coded[at] = '\0';
        begin(false);
        ATOM(PW_ATOM_USER, "");
        add_field("Authorization", coded);
        ABOUT("%zu bytes", size);
        const pw_text *line = line_of("", &nothing);
        CHECK_INT(line->size, size < 256 ? size : 1);
        end();
    }
}

/* The text in a log for one byte from a client. */
static size_t escaped(char to[8], unsigned char c, bool json)
{
    if (c >= 32 && c <= 126 && c != '"' && c != '\\')
        return (size_t)snprintf(to, 8, "%c", c);
    if (json && (c == '"' || c == '\\'))
        return (size_t)snprintf(to, 8, "\\%c", c);
    return (size_t)snprintf(to, 8, json ? "\\u%04x" : "\\x%02x", c);
}

static void every_byte_is_escaped_as_its_format_requires(void)
{
    for (int json = 0; json < 2; json++)
        for (int c = 0; c < 256; c++) {
            char value[3] = {'a', (char)c, 'z'}, expected[16] = "a";
            size_t size = 1 + escaped(expected + 1, (unsigned char)c, json);
            expected[size++] = 'z';
            begin(json);
            ATOM(PW_ATOM_METHOD, "");
            head.method = (pw_span){value, 3};
            ABOUT("byte %d, json %d", c, json);
            const pw_text *line = line_of("", &nothing);
            check_bytes(__FILE__, __LINE__, "line", line->at, line->size, expected, size);
            end();
        }
}

static void a_value_has_2048_bytes_at_most(void)
{
    char value[VALUE_MOST + 2];
    memset(value, 'v', sizeof value);
    for (size_t size = VALUE_MOST - 1; size <= VALUE_MOST + 1; size++) {
        begin(false);
        ATOM(PW_ATOM_METHOD, "");
        ATOM(PW_ATOM_LITERAL, "|");
        ATOM(PW_ATOM_FIELD, "x");
        head.method = (pw_span){value, size};
        fields[head.field_count++] = (pw_field){.name = span("X"), .value = {"\1\2", 2}};
        const pw_text *line = line_of("", &nothing);
        size_t kept = size < VALUE_MOST ? size : VALUE_MOST;
        CHECK_INT(line->size, kept + 1 + 8);
        CHECK(memcmp(line->at, value, kept) == 0);
        CHECK_BYTES(line->at + kept, line->size - kept, "|\\x01\\x02");
        end();
    }
}

static void a_long_literal_is_whole(void)
{
    char literal[1000];
    memset(literal, 'l', sizeof literal);
    begin(false);
    ATOM(PW_ATOM_METHOD, "");
    add_atom(PW_ATOM_LITERAL, literal, sizeof literal);
    ATOM(PW_ATOM_STATUS, "");
    const pw_text *line = line_of("", &nothing);
    CHECK_INT(line->size, 1 + sizeof literal + 3);
    CHECK(memcmp(line->at + 1, literal, sizeof literal) == 0);
    CHECK_BYTES(line->at + 1 + sizeof literal, 3, "200");
    end();
}

static void a_program_without_its_end_stops_there(void)
{
    begin(false);
    ATOM(PW_ATOM_STATUS, "");
    ATOM(PW_ATOM_LITERAL, "abc");
    for (size_t cut = 1; cut < 6; cut++) {
        server->access.program_size = program.size - cut;
        CHECK_LINE("", &nothing, "200");
    }
    server->access.program_size = program.size;
    CHECK_LINE("", &nothing, "200abc");
    end();
}

/* ------------------------------------------------------------------ atoms of the response */

static void a_response_has_its_numbers(void)
{
    static const int atoms[] = {
        PW_ATOM_STATUS,       PW_ATOM_BYTES,           PW_ATOM_BYTES_OR_DASH,
        PW_ATOM_SECONDS,      PW_ATOM_DECIMAL_SECONDS, PW_ATOM_MILLISECONDS,
        PW_ATOM_MICROSECONDS, PW_ATOM_QUEUE,           PW_ATOM_DURATION};
    begin(false);
    for (size_t i = 0; i < sizeof atoms / sizeof atoms[0]; i++) {
        ATOM(PW_ATOM_LITERAL, " ");
        ATOM(atoms[i], "");
    }
    CHECK_LINE("", (&(pw_access_facts){.status = 404}), " 404 0 - 0 0.000000 0 0 0 0.0 ms");
    CHECK_LINE("", (&(pw_access_facts){200, 1, 1, 2, NULL}), " 200 1 1 0 0.000001 0 1 2 0.0 ms");
    CHECK_LINE("", (&(pw_access_facts){201, 12345, 999999, 70, NULL}),
               " 201 12345 12345 0 0.999999 999 999999 70 999.9 ms");
    CHECK_LINE("", (&(pw_access_facts){500, 2, 1000000, 3, NULL}),
               " 500 2 2 1 1.000000 1000 1000000 3 1.00 s");
    CHECK_LINE("", (&(pw_access_facts){500, 2, 61234567, 3, NULL}),
               " 500 2 2 61 61.234567 61234 61234567 3 61.23 s");
    CHECK_LINE("", (&(pw_access_facts){500, 2, 450, -5, NULL}),
               " 500 2 2 0 0.000450 0 450 0 0.4 ms");
    end();
}

static void the_id_of_a_request_is_logged_unchanged(void)
{
    begin(false);
    ATOM(PW_ATOM_REQUEST_ID, "");
    CHECK_LINE("", (&(pw_access_facts){.id = "an-id"}), "an-id");
    CHECK_LINE("", (&(pw_access_facts){.id = NULL}), "-");
    end();
}

static void a_text_for_a_class_of_statuses_is_logged_only_for_them(void)
{
    begin(false);
    ATOM(PW_ATOM_IF_STATUS, "4four");
    ATOM(PW_ATOM_IF_STATUS, "5five");
    ATOM(PW_ATOM_IF_STATUS, "5");
    ATOM(PW_ATOM_IF_STATUS, "");
    CHECK_LINE("", (&(pw_access_facts){.status = 399}), "");
    CHECK_LINE("", (&(pw_access_facts){.status = 400}), "four");
    CHECK_LINE("", (&(pw_access_facts){.status = 499}), "four");
    CHECK_LINE("", (&(pw_access_facts){.status = 500}), "five");
    end();
}

static void a_text_for_slow_responses_begins_with_its_limit(void)
{
    begin(false);
    ATOM(PW_ATOM_IF_SLOW, "\0\1\2\3slow"); /* 66051 ms */
    ATOM(PW_ATOM_IF_SLOW, "\0\0\0\2!");
    ATOM(PW_ATOM_IF_SLOW, "\0\0\0");
    CHECK_LINE("", (&(pw_access_facts){.duration = 1999}), "");
    CHECK_LINE("", (&(pw_access_facts){.duration = 2000}), "!");
    CHECK_LINE("", (&(pw_access_facts){.duration = 66050999}), "!");
    CHECK_LINE("", (&(pw_access_facts){.duration = 66051000}), "slow!");
    end();
}

static void a_field_of_the_response_is_found_by_its_whole_name(void)
{
    begin(false);
    ATOM(PW_ATOM_LITERAL, "<");
    ATOM(PW_ATOM_RESPONSE_FIELD, "x-size");
    ATOM(PW_ATOM_LITERAL, ">");
    CHECK_LINE("HTTP/1.1 200 OK\r\n", &nothing, "<->");
    CHECK_LINE("HTTP/1.1 200 OK\r\nX-Size: 12\r\n", &nothing, "<12>");
    CHECK_LINE("HTTP/1.1 200 OK\r\nA: b\r\nx-sizE: 1\r\nX-Size: 2\r\n", &nothing, "<1>");
    CHECK_LINE("HTTP/1.1 200 OK\r\nX-Siz: 1\r\nX-Sizes: 2\r\n", &nothing, "<->");
    CHECK_LINE("HTTP/1.1 200 X-Size: 5\r\nB: X-Size: 7\r\n", &nothing, "<->");
    CHECK_LINE("HTTP/1.1 200 OK\r\nX-Size: \r\nC: d\r\n", &nothing, "<->");
    CHECK_LINE("HTTP/1.1 200 OK\r\nX-Size: 1\"\r\nC: d\r\n", &nothing, "<1\\x22>");
    CHECK_LINE("HTTP/1.1 200 OK\r\nX-Size", &nothing, "<->");
    CHECK_LINE("HTTP/1.1 200 OK", &nothing, "<->");
    end();
    begin(true);
    ATOM(PW_ATOM_METHOD, "");
    ATOM(PW_ATOM_RESPONSE_FIELD, "a");
    ATOM(PW_ATOM_STATUS, "");
    head.method = span("\"");
    CHECK_LINE("HTTP/1.1 200 OK\r\nA: \"\r\n", &nothing, "\\\"\\\"200");
    end();
}

static void a_long_field_of_the_response_is_cut(void)
{
    char response[VALUE_MOST + 100] = "HTTP/1.1 200 OK\r\nX-Size: ";
    size_t at = strlen(response);
    memset(response + at, 'x', VALUE_MOST + 10);
    begin(false);
    ATOM(PW_ATOM_RESPONSE_FIELD, "x-size");
    ATOM(PW_ATOM_STATUS, "");
    const pw_text *line = line_of(response, &nothing);
    CHECK_INT(line->size, VALUE_MOST + 3);
    end();
}

static void an_atom_of_a_request_that_could_not_be_read_is_a_dash(void)
{
    begin(false);
    ATOM(PW_ATOM_METHOD, "");
    ATOM(PW_ATOM_STATUS, "");
    pw_access_line(server, program.at, program.size, &(pw_access_facts){.status = 400});
    CHECK_BYTES(server->access.lines.at, server->access.lines.size, "-400\n");
    end();
}

/* ------------------------------------------------------------------ the time */

static void the_time_is_local_and_in_the_form_of_the_format(void)
{
    setenv("TZ", "XYZ-05:30", 1);
    tzset();
    for (int json = 0; json < 2; json++) {
        char before[64], after[64], clock[64];
        begin(json);
        ATOM(PW_ATOM_TIME, "");
        ATOM(PW_ATOM_LITERAL, " ");
        ATOM(PW_ATOM_CLOCK, "");
        const char *format =
            json ? "%Y-%m-%dT%H:%M:%S%z %H:%M:%S" : "%d/%b/%Y:%H:%M:%S %z %H:%M:%S";
        time_t now = time(NULL);
        strftime(before, sizeof before, format, localtime(&now));
        const pw_text *line = line_of("", &nothing);
        snprintf(clock, sizeof clock, "%.*s", (int)line->size, line->at);
        now = time(NULL);
        strftime(after, sizeof after, format, localtime(&now));
        CHECK(strcmp(clock, before) == 0 || strcmp(clock, after) == 0);
        /* In the same second it is not made again. */
        server->access.second = time(NULL);
        server->access.time[0] = '!';
        line = line_of("", &nothing);
        if (time(NULL) == server->access.second)
            CHECK_INT(line->at[0], '!');
        server->access.second--;
        line = line_of("", &nothing);
        CHECK(line->at[0] != '!');
        end();
    }
    unsetenv("TZ");
    tzset();
}

/* ------------------------------------------------------------------ when lines are written */

static off_t written(void)
{
    return lseek(file, 0, SEEK_CUR);
}

static void lines_wait_for_more_lines_up_to_a_delay_and_64_kib(void)
{
    char literal[1023];
    memset(literal, 'l', sizeof literal);
    begin(false);
    add_atom(PW_ATOM_LITERAL, literal, sizeof literal);
    pw_access_line(server, program.at, program.size, &nothing);
    CHECK_INT(server->access.due, 5000 + DELAY_MS);
    server->timers.now += 50;
    for (int i = 0; i < WRITTEN_AT / 1024 - 2; i++)
        pw_access_line(server, program.at, program.size, &nothing);
    CHECK_INT(server->access.due, 5000 + DELAY_MS); /* of the first */
    CHECK_INT(server->access.lines.size, WRITTEN_AT - 1024);
    CHECK_INT(written(), 0);
    pw_access_line(server, program.at, program.size, &nothing);
    CHECK_INT(written(), WRITTEN_AT);
    CHECK_INT(server->access.lines.size, 0);
    CHECK_INT(server->access.due, 0);
    pw_access_line(server, program.at, program.size, &nothing);
    CHECK_INT(server->access.due, 5050 + DELAY_MS);
    pw_access_flush(server);
    CHECK_INT(written(), WRITTEN_AT + 1024);
    CHECK_INT(server->access.due, 0);
    pw_access_flush(server); /* nothing is left */
    CHECK_INT(written(), WRITTEN_AT + 1024);
    end();
}

static void a_prompt_log_does_not_wait(void)
{
    begin(false);
    ATOM(PW_ATOM_STATUS, "");
    server->access.prompt = true;
    pw_access_line(server, program.at, program.size, &nothing);
    CHECK_INT(written(), 4);
    end();
}

static void a_log_that_cannot_be_written_keeps_its_lines(void)
{
    begin(false);
    ATOM(PW_ATOM_STATUS, "");
    int read_only = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(read_only >= 0);
    server->access.fd = read_only;
    pw_access_line(server, program.at, program.size, &(pw_access_facts){.status = 201});
    pw_access_flush(server);
    CHECK_INT(server->access.lines.size, 4);
    CHECK_INT(server->access.due, 5000 + DELAY_MS); /* it is tried again */
    server->access.prompt = true;
    pw_access_line(server, program.at, program.size, &(pw_access_facts){.status = 404});
    CHECK_INT(server->access.lines.size, 8); /* and not with each line */
    server->access.fd = file;
    pw_access_flush(server);
    CHECK_INT(written(), 8);
    CHECK_INT(server->access.lines.size, 0);
    close(read_only);
    end();
}

static void without_a_log_lines_are_dropped(void)
{
    begin(false);
    ATOM(PW_ATOM_STATUS, "");
    server->access.fd = -1;
    pw_access_line(server, program.at, program.size, &nothing);
    pw_access_flush(server);
    CHECK_INT(server->access.lines.size, 0);
    end();
}

static void a_pipe_that_takes_a_part_gets_the_rest_in_order(void)
{
    int ends[2];
    char got[8];
    begin(false);
    ATOM(PW_ATOM_STATUS, "");
    REQUIRE(pipe(ends) == 0);
    server->access.fd = ends[1];
    pw_access_line(server, program.at, program.size, &(pw_access_facts){.status = 201});
    pw_access_line(server, program.at, program.size, &(pw_access_facts){.status = 404});
    pw_access_flush(server);
    CHECK_INT(read(ends[0], got, sizeof got), 8);
    CHECK_BYTES(got, 8, "201\n404\n");
    close(ends[0]);
    close(ends[1]);
    end();
}

static void a_disk_with_little_room_gets_each_byte_once(void)
{
    struct rlimit before, full;
    getrlimit(RLIMIT_FSIZE, &before);
    full = before;
    for (rlim_t room = 0; room <= 8; room++) {
        char got[16];
        ABOUT("room for %d bytes", (int)room);
        begin(false);
        ATOM(PW_ATOM_STATUS, "");
        pw_access_line(server, program.at, program.size, &(pw_access_facts){.status = 201});
        pw_access_line(server, program.at, program.size, &(pw_access_facts){.status = 404});
        full.rlim_cur = room;
        setrlimit(RLIMIT_FSIZE, &full);
        pw_access_flush(server);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK_INT(written(), room);
        CHECK_INT(server->access.lines.size, 8 - room);
        pw_access_flush(server);
        CHECK_INT(pread(file, got, sizeof got, 0), 8);
        CHECK_BYTES(got, 8, "201\n404\n");
        end();
    }
    ABOUT("%s", "");
}

static void without_memory_a_line_is_short_or_missing_and_nothing_breaks(void)
{
    for (long n = 1; n < 12; n++) {
        begin(false);
        ATOM(PW_ATOM_METHOD, "");
        ATOM(PW_ATOM_RESPONSE_FIELD, "a");
        ATOM(PW_ATOM_STATUS, "");
        head.method = span("GET");
        pw_alloc_fail_after(n);
        pw_access_request(server, &text, &head, &peer);
        pw_access_head(server, &text, LITERAL("HTTP/1.1 200 OK\r\nA: b\r\n"));
        pw_access_line(server, text.at, text.size, &nothing);
        pw_alloc_fail_after(0);
        CHECK(server->access.lines.size <= sizeof "GETb200\n" - 1);
        CHECK(n < 4 || server->access.lines.size == sizeof "GETb200\n" - 1);
        end();
    }
}

int main(void)
{
    RUN(each_atom_of_a_request_has_its_value);
    RUN(a_field_is_found_by_its_whole_name_in_any_case);
    RUN(the_user_is_that_of_basic_authentication);
    RUN(a_user_of_255_bytes_is_named_and_a_longer_one_is_not);
    RUN(every_byte_is_escaped_as_its_format_requires);
    RUN(a_value_has_2048_bytes_at_most);
    RUN(a_long_literal_is_whole);
    RUN(a_program_without_its_end_stops_there);
    RUN(a_response_has_its_numbers);
    RUN(the_id_of_a_request_is_logged_unchanged);
    RUN(a_text_for_a_class_of_statuses_is_logged_only_for_them);
    RUN(a_text_for_slow_responses_begins_with_its_limit);
    RUN(a_field_of_the_response_is_found_by_its_whole_name);
    RUN(a_long_field_of_the_response_is_cut);
    RUN(an_atom_of_a_request_that_could_not_be_read_is_a_dash);
    RUN(the_time_is_local_and_in_the_form_of_the_format);
    RUN(lines_wait_for_more_lines_up_to_a_delay_and_64_kib);
    RUN(a_prompt_log_does_not_wait);
    RUN(a_log_that_cannot_be_written_keeps_its_lines);
    RUN(without_a_log_lines_are_dropped);
    RUN(a_pipe_that_takes_a_part_gets_the_rest_in_order);
    RUN(a_disk_with_little_room_gets_each_byte_once);
    RUN(without_memory_a_line_is_short_or_missing_and_nothing_breaks);
    text_free(&program);
    return check_end();
}
