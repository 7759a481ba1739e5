/* csrc/chunked.c: valid and invalid content, and its end, independent of how it is split. */
#include <stdio.h>
#include <string.h>

#include "chunked.h"
#include "outcome.h"

/* Checks content, a blank, the outcome and the number of bytes used. */
static void check_outcome(const char *data, size_t size, const char *expected)
{
    test_text whole = {NULL, 0, 0}, split = {NULL, 0, 0};
    test_cuts cuts = cuts_none(size);
    outcome_of_chunked(&whole, data, &cuts);
    ABOUT("%.60s", data);
    check_bytes(__FILE__, __LINE__, "outcome", whole.at, whole.size, expected, strlen(expected));
    cuts = cuts_all(size);
    outcome_of_chunked(&split, data, &cuts);
    CHECK(text_same(&whole, &split));
    for (size_t at = 0; at < size; at++) {
        cuts = cuts_one(at, size);
        outcome_of_chunked(&split, data, &cuts);
        CHECK(text_same(&whole, &split));
    }
    text_free(&whole);
    text_free(&split);
}

#define VALID(data, content)                                                                       \
    do {                                                                                           \
        char expected[200];                                                                        \
        snprintf(expected, sizeof expected, "%s done %zu", (content), sizeof(data) - 1);           \
        check_outcome(LITERAL(data), expected);                                                    \
        check_outcome(LITERAL(data "GET / HTTP/1.1\r\n"), expected);                               \
    } while (0)

/* The byte at `at` is the first invalid one. */
#define INVALID(data, content, at) check_outcome(LITERAL(data), content " error " #at)

static void chunks_are_joined_and_the_bytes_after_them_are_left(void)
{
    VALID("0\r\n\r\n", "");
    VALID("5\r\nhello\r\n0\r\n\r\n", "hello");
    VALID("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world");
    VALID("000A\r\n0123456789\r\n1\r\na\r\n000\r\n\r\n", "0123456789a");
    VALID("a\r\n\r\n0\r\n\r\n..\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n..\n");
}

static void extensions_are_ignored(void)
{
    VALID("1;a\r\nx\r\n0;b=c\r\n\r\n", "x");
    VALID("1;\ta = \"q;\\\"\t\xff\" ; b;c=d \r\nx\r\n0\r\n\r\n", "x");
}

static void trailers_are_checked_and_dropped(void)
{
    VALID("1\r\nx\r\n0\r\nA: b\r\nC:\r\nD:\t\xff e \r\n\r\n", "x");
    INVALID("0\r\nA b\r\n\r\n", "", 4);
    INVALID("0\r\n: b\r\n\r\n", "", 3);
    INVALID("0\r\nA : b\r\n\r\n", "", 4);
    INVALID("0\r\n A: b\r\n\r\n", "", 3);
    INVALID("0\r\nA: b\r\n c\r\n\r\n", "", 9);
    INVALID("0\r\nA: b\n\r\n", "", 7);
    INVALID("0\r\nA: b\rX", "", 8);
    INVALID("0\r\nA\r\n\r\n", "", 4);
    INVALID("0\r\n\rX", "", 4);
    INVALID("0\r\n\n", "", 3);
    INVALID("0\r\nGET / HTTP/1.1\r\n", "", 6);
}

static void a_size_has_hexadecimal_digits_only(void)
{
    INVALID("\r\n", "", 0);
    INVALID("+1\r\nx", "", 0);
    INVALID("-1\r\nx", "", 0);
    INVALID(" 1\r\nx", "", 0);
    INVALID("1_0\r\nx", "", 1);
    INVALID("0x1\r\nx", "", 1);
    INVALID("1 1\r\nx", "", 1);
    INVALID("1 ;a\r\nx", "", 1);
    INVALID("1g\r\nx", "", 1);
    INVALID(";a\r\nx", "", 0);
    INVALID("1\nx", "", 1);
    INVALID("1\rx", "", 2);
    INVALID("1\0\r\nx", "", 1);
}

static void a_size_fits_63_bits(void)
{
    VALID("00000000000000000000000000000001\r\nx\r\n0\r\n\r\n", "x");
    INVALID("8000000000000000\r\n", "", 15);
    INVALID("10000000000000005\r\nhello", "", 16);
    check_outcome(LITERAL("7fffffffffffffff\r\nx"), "x more 19");
}

static void data_end_at_their_size(void)
{
    INVALID("1\r\nxx\r\n", "x", 4);
    INVALID("1\r\nx\n", "x", 4);
    INVALID("1\r\nx\r\r\n", "x", 5);
    INVALID("2\r\nx\r\n0\r\n\r\n", "x\r", 5);
    INVALID("1\r\nx\r\n\r\n", "x", 6);
}

static void extensions_are_tokens_and_quoted_strings(void)
{
    INVALID("1;\r\nx", "", 2);
    INVALID("1;=a\r\nx", "", 2);
    INVALID("1;a=\r\nx", "", 4);
    INVALID("1;a b\r\nx", "", 4);
    INVALID("1;a=b c\r\nx", "", 6);
    INVALID("1;a=\"b\"c\r\nx", "", 7);
    INVALID("1;a=\"b\r\nx", "", 6);
    INVALID("1;a=\"\\\r\nx", "", 6);
    INVALID("1;a\nx", "", 3);
    INVALID("1;a\r\rx", "", 4);
    INVALID("1;a=\"\0\"\r\nx", "", 5);
    INVALID("1;a,b\r\nx", "", 3);
}

static void incomplete_content_asks_for_more(void)
{
    static const char data[] = "5;a=\"b\\\"\"\r\nhello\r\n0\r\nT: r\r\n\r\n";
    for (size_t size = 0; size < sizeof data - 1; size++) {
        test_text text = {NULL, 0, 0};
        test_cuts cuts = cuts_all(size);
        outcome_of_chunked(&text, data, &cuts);
        ABOUT("%zu bytes", size);
        CHECK_HOLDS(&text, "more");
        text_free(&text);
    }
}

/* The number of bytes of `before` and a repeated `filler` that are taken before the refusal. */
static size_t refused_after(const char *before, const char *filler)
{
    static char data[200000];
    size_t size = strlen(before), step = strlen(filler);
    memcpy(data, before, size);
    for (; size + step <= sizeof data; size += step)
        memcpy(data + size, filler, step);
    pw_chunked chunked;
    memset(&chunked, 0, sizeof chunked);
    size_t at = 0, used;
    pw_span content;
    pw_parse outcome = PW_PARSE_MORE;
    while (outcome == PW_PARSE_MORE && at < size) {
        outcome = pw_chunked_parse(&chunked, data + at, size - at, &used, &content);
        at += used;
    }
    return outcome == PW_PARSE_ERROR ? at : SIZE_MAX;
}

static void floods_are_limited(void)
{
    CHECK_INT(refused_after("1;", "a"), 2 + 8192);
    CHECK_INT(refused_after("0\r\n", "A: b\r\n"), 3 + 8192);
    CHECK_INT(refused_after("0\r\nA:", "b"), 3 + 8192);
    CHECK_INT(refused_after("", "0"), 8193);
    CHECK(refused_after("", "1;abcdefghijklmnopqrstuvw\r\nx\r\n") < 40000);
    CHECK(refused_after("", "1\r\nx\r\n") == SIZE_MAX); /* one-byte chunks are legal */
}

int main(void)
{
    RUN(chunks_are_joined_and_the_bytes_after_them_are_left);
    RUN(extensions_are_ignored);
    RUN(trailers_are_checked_and_dropped);
    RUN(a_size_has_hexadecimal_digits_only);
    RUN(a_size_fits_63_bits);
    RUN(data_end_at_their_size);
    RUN(extensions_are_tokens_and_quoted_strings);
    RUN(incomplete_content_asks_for_more);
    RUN(floods_are_limited);
    return check_end();
}
