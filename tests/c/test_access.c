/* csrc/access.c: the lines of the access log. No bytes from a client can change their form. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "site.h"

static test_site site;
static int file; /* in memory */

static void begin_with(pw_settings settings)
{
    file = memfd_create("log", MFD_CLOEXEC);
    REQUIRE(file >= 0);
    settings.access_file = file;
    site_open(&site, &settings, AF_UNIX);
}

static void begin(bool json)
{
    pw_settings settings = site_settings();
    site_log(&settings, -1);
    settings.access_json = json;
    begin_with(settings);
}

static void end(void)
{
    site_close(&site);
    close(file);
}

/* Takes the lines that were logged since the last call. */
static void take_lines(test_text *to)
{
    char part[4096];
    text_clear(to);
    pw_server_log_to(site.server, file); /* which writes the waiting lines */
    off_t at = 0;
    for (ssize_t size; (size = pread(file, part, sizeof part, at)) > 0; at += size)
        text_add(to, part, (size_t)size);
    REQUIRE(ftruncate(file, 0) == 0 && lseek(file, 0, SEEK_SET) == 0);
}

/* The only log line of a connection that sends this request. */
static void line_of(test_text *to, const char *request, size_t size)
{
    test_client client = site_connect(&site);
    client_send(&client, request, size);
    site_serve(&site);
    client_close(&client);
    site_serve(&site);
    take_lines(to);
    CHECK(to->size > 0 && memchr(to->at, '\n', to->size) == to->at + to->size - 1);
}

static void a_line_has_the_values_of_the_request_and_of_the_response(void)
{
    test_text line = {NULL, 0, 0};
    begin(false);
    line_of(&line, LITERAL("GET /a%20b?c=d HTTP/1.0\r\nUser-Agent: curl\r\n"
                           "Authorization: Basic YW5uYTpzZWNyZXQ=\r\n\r\n"));
    CHECK_HOLDS(&line, "- anna GET /a%20b?c=d /a%20b c=d HTTP/1.0 curl ");
    CHECK_HOLDS(&line, " 200 4 4 0 0.0");
    end();
    text_free(&line);
}

static void no_byte_from_a_client_ends_a_line_or_a_quoted_text(void)
{
    test_text line = {NULL, 0, 0};
    for (int json = 0; json < 2; json++) {
        begin(json);
        line_of(&line, LITERAL("GET /?\"\\ HTTP/1.0\r\nUser-Agent: a\"\\\t\x80\xff z\r\n"
                               "Authorization: basic Cg0AIjp4\r\n\r\n"));
        if (json) {
            CHECK_HOLDS(&line, " a\\\"\\\\\\u0009\\u0080\\u00ff z ");
            CHECK_HOLDS(&line, " \\u000a\\u000d\\u0000\\\" GET /?\\\"\\\\ ");
        } else {
            CHECK_HOLDS(&line, " a\\x22\\x5c\\x09\\x80\\xff z ");
            CHECK_HOLDS(&line, " \\x0a\\x0d\\x00\\x22 GET /?\\x22\\x5c ");
        }
        end();
    }
    text_free(&line);
}

static void a_long_value_is_cut(void)
{
    static char request[12000];
    test_text line = {NULL, 0, 0};
    begin(false);
    memset(request, '"', sizeof request);
    memcpy(request, LITERAL("GET /?"));
    memcpy(request + sizeof request - 13, LITERAL(" HTTP/1.0\r\n\r\n"));
    line_of(&line, request, sizeof request);
    CHECK(line.size > 2 * 2000 * 4 && line.size < 3 * 2048 * 4 + 300);
    end();
    text_free(&line);
}

static void a_repeated_head_is_logged_with_its_values(void)
{
    test_text line = {NULL, 0, 0};
    begin(false);
    test_client client = site_connect(&site);
    for (int i = 0; i < 5; i++) {
        SEND(&client, "GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\n\r\n");
        CHECK_INT(site_serve(&site), 1);
        take_lines(&line);
        ABOUT("request %d", i);
        CHECK_BYTES(line.at, line.size < 25 ? line.size : (size_t)25, "- - GET /a /a - HTTP/1.1 ");
    }
    client_close(&client);
    end();
    text_free(&line);
}

static void a_refused_request_is_logged_with_its_known_parts(void)
{
    test_text line = {NULL, 0, 0};
    begin(false);
    line_of(&line, LITERAL("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"));
    CHECK_HOLDS(&line, "- - GET /a /a - HTTP/1.1 - ");
    CHECK_HOLDS(&line, " 400 0 - ");
    line_of(&line, LITERAL("nonsense\r\n\r\n"));
    CHECK_HOLDS(&line, "- - - nonsense - - ");
    CHECK_HOLDS(&line, " 400 0 - ");
    end();
    text_free(&line);
}

/* A client that is too slow has no head yet. Its line must not show the head of another. */
static void a_timeout_is_not_logged_with_the_request_of_another_connection(void)
{
    static const char *const slow[] = {"GET /slow HT",
                                       "PUT /slow HTTP/1.0\r\nContent-Length: 5\r\n\r\nhe"};
    test_text line = {NULL, 0, 0};
    for (int i = 0; i < 2; i++) {
        begin(false);
        test_client client = site_connect(&site), other = site_connect(&site);
        client_send(&client, slow[i], strlen(slow[i]));
        CHECK_INT(site_serve(&site), 0);
        SEND(&other, "GET /private HTTP/1.0\r\nAuthorization: Basic YW5uYTpzZWNyZXQ=\r\n\r\n");
        CHECK_INT(site_serve(&site), 1);
        client_close(&other);
        CHECK_INT(site_serve(&site), 0);
        take_lines(&line);
        site.server->all->timer.due = 0; /* does not depend on the speed of the machine */
        CHECK_INT(site_serve(&site), 0);
        take_lines(&line);
        CHECK_HOLDS(&line, " 408 0 - ");
        if (i == 0)
            CHECK_BYTES(line.at, line.size < 23 ? line.size : (size_t)23,
                        "- - - GET /slow HT - - ");
        else
            CHECK_HOLDS(&line, "- - PUT /slow /slow - HTTP/1.0 - ");
        client_close(&client);
        end();
    }
    text_free(&line);
}

/* Begins with another format, whose lines do not wait. */
static void begin_prompt(const char *program, size_t size)
{
    pw_settings settings = site_settings();
    settings.access_program = program;
    settings.access_program_size = (int64_t)size;
    settings.access_prompt = true;
    begin_with(settings);
}

static void a_text_depends_on_the_status_or_the_duration(void)
{
    /* PW_ATOM_IF_STATUS, PW_ATOM_IF_SLOW: at least 0 ms, and at least 2^32-1 */
    static const char program[] = "\26\0\3"
                                  "2ok"
                                  "\26\0\4"
                                  "4bad"
                                  "\27\0\11"
                                  "\0\0\0\0 slow"
                                  "\27\0\6"
                                  "\377\377\377\377no";
    test_text line = {NULL, 0, 0};
    begin_prompt(LITERAL(program));
    line_of(&line, LITERAL("GET / HTTP/1.0\r\n\r\n"));
    CHECK_BYTES(line.at, line.size, "ok slow\n");
    line_of(&line, LITERAL("nonsense\r\n\r\n"));
    CHECK_BYTES(line.at, line.size, "bad slow\n");
    end();
    text_free(&line);
}

/* Python makes well-formed programs only. Others must do no harm. */
static void an_atom_whose_condition_is_false_is_left_out(void)
{
    static const char program[] = "\26\0\0"
                                  "\27\0\3"
                                  "\0\0\0"
                                  "\1\0\3"
                                  "end"
                                  "\27\0\377"
                                  "x";
    test_text line = {NULL, 0, 0};
    begin_prompt(LITERAL(program));
    line_of(&line, LITERAL("GET / HTTP/1.0\r\n\r\n"));
    CHECK_BYTES(line.at, line.size, "end\n");
    end();
    text_free(&line);
}

static void a_prompt_line_is_written_at_once(void)
{
    char part[64];
    begin_prompt(LITERAL("\12\0\0")); /* PW_ATOM_TIME */
    test_client client = site_connect(&site);
    SEND(&client, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(site_serve(&site), 1);
    CHECK_INT(pread(file, part, sizeof part, 0), 27); /* 21/Nov/2026:12:00:00 +0000 and LF */
    client_close(&client);
    end();
}

/* ------------------------------------------------------------------ a file that takes nothing */

#define LINE_SIZE 1000 /* of each line, with its end */

static int ours, theirs; /* a pair of sockets: what the core writes to, and what reads */

static void begin_socket(void)
{
    static const char program[] = "\6\0\0"; /* PW_ATOM_PATH */
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    theirs = pair[0];
    ours = pair[1];
    pw_settings settings = site_settings();
    settings.access_program = program;
    settings.access_program_size = sizeof program - 1;
    settings.access_file = ours;
    site_open(&site, &settings, AF_UNIX);
}

static void end_socket(void)
{
    site_close(&site);
    close(ours);
    close(theirs);
}

static void ask(test_client *client, int count, char letter)
{
    char request[LINE_SIZE + 40] = "GET /";
    memset(request + 5, letter, LINE_SIZE - 2);
    memcpy(request + 5 + LINE_SIZE - 2, LITERAL(" HTTP/1.1\r\nHost: a\r\n\r\n"));
    for (int i = 0; i < count; i++) {
        client_send(client, request, strlen(request));
        CHECK_INT(site_serve(&site), 1);
        client_receive(client);
        text_clear(&client->got);
    }
}

/* Adds what is in the socket; each message is whole lines. */
static void read_socket(test_text *to)
{
    static char part[512 * 1024];
    for (ssize_t size; (size = recv(theirs, part, sizeof part, 0)) > 0;) {
        CHECK_INT(part[size - 1], '\n');
        CHECK_INT(size % LINE_SIZE, 0);
        text_add(to, part, (size_t)size);
    }
}

static void bytes_that_are_not_written_at_first_are_written_later(void)
{
    test_text lines = {NULL, 0, 0};
    begin_socket();
    test_client client = site_connect(&site);
    ask(&client, 600, 'a'); /* more than the socket has room for, and less than is kept */
    for (int i = 0; i < 10; i++) {
        read_socket(&lines);
        pw_server_log_to(site.server, ours);
    }
    CHECK_INT(lines.size, 600 * LINE_SIZE);
    pw_incident incident;
    CHECK(!pw_incident_take(site.server, &incident));
    CHECK_INT(pw_server_log_end(site.server, 0, 0), 0);
    client_close(&client);
    end_socket();
    text_free(&lines);
}

static void lines_without_room_are_dropped_whole_and_counted(void)
{
    enum { MANY = 2000 };
    test_text lines = {NULL, 0, 0};
    begin_socket();
    test_client client = site_connect(&site);
    ask(&client, MANY, 'a');
    pw_incident incident;
    CHECK(!pw_incident_take(site.server, &incident)); /* not before the file takes bytes again */
    read_socket(&lines);
    pw_server_log_to(site.server, ours);
    REQUIRE(pw_incident_take(site.server, &incident));
    CHECK_INT(incident.what, PW_INCIDENT_LOG);
    CHECK_INT(incident.error, EAGAIN);
    for (int i = 0; i < 20; i++) {
        read_socket(&lines);
        pw_server_log_to(site.server, ours);
    }
    CHECK_INT(lines.size / LINE_SIZE + (size_t)incident.unsent, MANY);
    ask(&client, 1, 'b');
    pw_server_log_to(site.server, ours);
    text_clear(&lines);
    read_socket(&lines);
    CHECK_INT(lines.size, LINE_SIZE);
    client_close(&client);
    end_socket();
    text_free(&lines);
}

static void bytes_that_are_never_written_are_counted_at_the_end(void)
{
    test_text lines = {NULL, 0, 0};
    begin_socket();
    test_client client = site_connect(&site);
    ask(&client, 1500, 'a');
    int64_t lost = pw_server_log_end(site.server, 100, 1);
    read_socket(&lines);
    CHECK_INT(lines.size / LINE_SIZE + (size_t)lost, 1500);
    ask(&client, 10, 'a'); /* whose connection is not logged */
    CHECK_INT(pw_server_log_end(site.server, 100, 1), 0);
    client_close(&client);
    end_socket();
    text_free(&lines);
}

static void the_rest_of_a_line_is_not_written_to_another_file(void)
{
    char part[4 * LINE_SIZE];
    int pair[2];
    begin_socket();
    REQUIRE(pipe(pair) == 0);
    REQUIRE(fcntl(pair[1], F_SETPIPE_SZ, 4096) == 4096);
    REQUIRE(fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
    pw_server_log_to(site.server, pair[1]);
    test_client client = site_connect(&site);
    ask(&client, 10, 'a');
    pw_server_log_to(site.server, ours); /* the pipe takes four lines and a part of the fifth */
    pw_server_log_to(site.server, ours);
    ssize_t size = recv(theirs, part, sizeof part, MSG_TRUNC);
    CHECK_INT(size, 5 * LINE_SIZE);
    CHECK_INT(part[0], '/');
    pw_incident incident;
    REQUIRE(pw_incident_take(site.server, &incident));
    CHECK_INT(incident.unsent, 1);
    client_close(&client);
    end_socket();
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    RUN(a_line_has_the_values_of_the_request_and_of_the_response);
    RUN(no_byte_from_a_client_ends_a_line_or_a_quoted_text);
    RUN(a_long_value_is_cut);
    RUN(a_repeated_head_is_logged_with_its_values);
    RUN(a_refused_request_is_logged_with_its_known_parts);
    RUN(a_text_depends_on_the_status_or_the_duration);
    RUN(an_atom_whose_condition_is_false_is_left_out);
    RUN(a_prompt_line_is_written_at_once);
    RUN(bytes_that_are_not_written_at_first_are_written_later);
    RUN(lines_without_room_are_dropped_whole_and_counted);
    RUN(bytes_that_are_never_written_are_counted_at_the_end);
    RUN(the_rest_of_a_line_is_not_written_to_another_file);
    RUN(a_timeout_is_not_logged_with_the_request_of_another_connection);
    return check_end();
}
