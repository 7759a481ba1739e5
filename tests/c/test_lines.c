/* csrc/lines.c: a head that is similar to the previous one. The
 * values must be those that the parser finds. */
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "check.h"
#include "head.h"
#include "lines.h"

static const pw_limits limits = {.max_head_size = 65536, .max_fields = 100};

#define LINE "GET / HTTP/1.1\r\n"

typedef struct {
    pw_field fields[100];
    pw_head head;
    pw_error error;
} parsed;

static bool parse(parsed *to, const char *data, size_t size)
{
    pw_head_progress progress = {0};
    to->head = (pw_head){.fields = to->fields};
    return pw_head_parse(&limits, data, size, &progress, &to->head, &to->error) == PW_PARSE_DONE;
}

static bool same_span(pw_span a, pw_span b)
{
    return a.size == b.size && memcmp(a.at, b.at, a.size) == 0;
}

/* The value of a field in the new head, if that head follows the previous one. */
static pw_span expected_value(const pw_field *before, const pw_changes *changes)
{
    for (size_t i = 0; i < changes->count; i++)
        if (changes->items[i].number == before->number)
            return changes->items[i].value;
    return before->value;
}

/* Returns the number of changes, or -1: the head does not follow. Both begin with LINE. */
static int follow(const char *before, const char *data, size_t size)
{
    static parsed old, new;
    size_t line = sizeof LINE - 1;
    pw_changes changes;
    REQUIRE(parse(&old, before, strlen(before)));
    pw_lines *lines = pw_lines_new(&old.head, before);
    REQUIRE(lines != NULL);
    char *exact = malloc(size - line + 1); /* lets a sanitizer find a read beyond it */
    REQUIRE(exact != NULL);
    memcpy(exact, data + line, size - line);
    size_t got = pw_lines_follow(lines, before + line, exact, size - line, &changes);
    int count = -1;
    if (got > 0) {
        count = (int)changes.count;
        if (CHECK(parse(&new, data, size)) && CHECK_INT(new.head.facts.size, line + got) &&
            CHECK_INT(new.head.field_count, old.head.field_count)) {
            for (size_t i = 0; i < new.head.field_count; i++) {
                CHECK_INT(new.fields[i].number, old.fields[i].number);
                CHECK(same_span(new.fields[i].value, expected_value(&old.fields[i], &changes)));
            }
            CHECK_INT(new.head.facts.keep_alive, old.head.facts.keep_alive);
            CHECK_INT(new.head.facts.content_length, old.head.facts.content_length);
            CHECK_INT(new.head.facts.chunked, old.head.facts.chunked);
            CHECK_INT(new.head.facts.expect_continue, old.head.facts.expect_continue);
        }
    }
    free(exact);
    pw_free(lines);
    return count;
}

#define BEFORE                                                                                     \
    LINE "Host: h\r\nCookie: a=b\r\nX-Own: o\r\nx_dropped: d\r\nAccept: a\r\nX-B: b\r\nAccept: "   \
         "b\r\n"                                                                                   \
         "Connection: keep-alive\r\nUser-Agent:u\r\n\r\n"

static void the_same_fields_with_other_values_match(void)
{
    CHECK_INT(follow(BEFORE, LITERAL(BEFORE)), 0);
    CHECK_INT(follow(BEFORE, LITERAL(BEFORE "GET")), 0);
    CHECK_INT(follow(LINE "Host: h\r\nCookie: a\r\nReferer: r\r\n\r\n",
                     LITERAL(LINE "Host: h\r\nCookie: other\xff\t\r\nReferer:\r\n\r\n")),
              2);
    CHECK_INT(follow(LINE "Host: h\r\nCookie: a\r\n\r\n",
                     LITERAL(LINE "Host: h\r\nCookie:   \t \r\n\r\n")),
              1);
}

static void an_uncertain_line_does_not_match(void)
{
    static const char before[] =
        LINE "Host: h\r\nCookie: a\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
             "x_dropped: d\r\n\r\n";
    static const char *const others[] = {
        "Host: i\r\nCookie: a\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: a\r\nX-Own: p\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: a\r\nX-Own: o\r\nAccept: c\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: a\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 1\r\n"
        "x_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: a\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: e\r\n\r\n",
        "Host: h\r\nCookie: a\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n\r\n",
        "Host: h\r\nCookie: a\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: d\r\nMore: m\r\n\r\n",
        "Host: h\r\ncookie: a\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: a\r\n b\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: a\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: a\rb\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\nContent-Length: 0\r\n"
        "x_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: 12345678\x7f\r\nX-Own: o\r\nAccept: a\r\nAccept: b\r\n"
        "Content-Length: 0\r\nx_dropped: d\r\n\r\n",
        "Host: h\r\nCookie: a",
    };
    CHECK_INT(follow(before, LITERAL(before)), 0);
    test_text data = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        ABOUT("case %zu", i);
        text_clear(&data);
        text_add(&data, LITERAL(LINE));
        text_add_string(&data, others[i]);
        CHECK_INT(follow(before, data.at, data.size), -1);
    }
    ABOUT("%s", "");
    text_free(&data);
}

static void every_part_of_a_head_is_too_short(void)
{
    for (size_t size = sizeof LINE - 1; size < sizeof BEFORE - 1; size++)
        CHECK_INT(follow(BEFORE, BEFORE, size), -1);
}

/* Inserts, removes and replaces bytes that have a meaning. */
static void a_match_has_the_values_that_the_parser_finds(void)
{
    static const char bytes[] = "\0\t\n\r :,;=_-aA19~\x7f\x80\xff\x1f";
    static char data[sizeof BEFORE + 100];
    size_t line = sizeof LINE - 1;
    int followed = 0;
    srand(1);
    for (int round = 0; round < 200000; round++) {
        size_t size = sizeof BEFORE - 1;
        memcpy(data, BEFORE, size);
        for (int left = 1 + rand() % 3; left > 0; left--) {
            size_t at = line + (size_t)rand() % (size - line);
            char byte = bytes[(size_t)rand() % (sizeof bytes - 1)];
            switch (rand() % 3) {
            case 0:
                data[at] = byte;
                break;
            case 1:
                memmove(data + at + 1, data + at, size++ - at);
                data[at] = byte;
                break;
            default:
                memmove(data + at, data + at + 1, --size - at);
            }
        }
        followed += follow(BEFORE, data, size) >= 0;
    }
    CHECK(followed > 1000);
}

int main(void)
{
    RUN(the_same_fields_with_other_values_match);
    RUN(an_uncertain_line_does_not_match);
    RUN(every_part_of_a_head_is_too_short);
    RUN(a_match_has_the_values_that_the_parser_finds);
    return check_end();
}
