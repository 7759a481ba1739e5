#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MOST 400 /* bytes of a value that a message shows */

static int tests, checks, failures;
static const char *running = "";
static char about[200];

void text_add(test_text *text, const char *data, size_t size)
{
    if (text->room - text->size < size) {
        size_t room = (text->size + size) * 2;
        char *at = realloc(text->at, room);
        if (at == NULL)
            abort();
        text->at = at;
        text->room = room;
    }
    if (size > 0)
        memcpy(text->at + text->size, data, size);
    text->size += size;
}

void text_add_string(test_text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

void text_clear(test_text *text)
{
    text->size = 0;
}

void text_free(test_text *text)
{
    free(text->at);
    *text = (test_text){NULL, 0, 0};
}

bool text_same(const test_text *a, const test_text *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->at, b->at, a->size) == 0);
}

static bool failed(const char *file, int line, const char *what)
{
    failures++;
    fprintf(stderr, "%s:%d: %s: %s%s%s\n", file, line, running, what, about[0] != '\0' ? ", " : "",
            about);
    return false;
}

static void show(const char *word, const char *at, size_t size)
{
    fprintf(stderr, "  %-9s", word);
    for (size_t i = 0; i < size && i < SHOWN_MOST; i++) {
        unsigned char c = (unsigned char)at[i];
        if (c == '\r')
            fputs("\\r", stderr);
        else if (c == '\n')
            fputs("\\n", stderr);
        else if (c < ' ' || c > '~')
            fprintf(stderr, "\\x%02x", c);
        else
            fputc(c, stderr);
    }
    if (size > SHOWN_MOST)
        fputs("...", stderr);
    fprintf(stderr, " (%zu bytes)\n", size);
}

bool check_true(const char *file, int line, const char *what, bool holds)
{
    checks++;
    return holds || failed(file, line, what);
}

bool check_int(const char *file, int line, const char *what, int64_t got, int64_t expected)
{
    checks++;
    if (got == expected)
        return true;
    failed(file, line, what);
    fprintf(stderr, "  expected %lld\n  got      %lld\n", (long long)expected, (long long)got);
    return false;
}

bool check_bytes(const char *file, int line, const char *what, const char *got, size_t size,
                 const char *expected, size_t expected_size)
{
    checks++;
    if (size == expected_size && (size == 0 || memcmp(got, expected, size) == 0))
        return true;
    failed(file, line, what);
    show("expected", expected, expected_size);
    show("got", got, size);
    return false;
}

bool check_holds(const char *file, int line, const char *what, const test_text *text,
                 const char *part, size_t size)
{
    checks++;
    if (text->at != NULL && memmem(text->at, text->size, part, size) != NULL)
        return true;
    failed(file, line, what);
    show("expected", part, size);
    show("in", text->at, text->size);
    return false;
}

void check_required(const char *file, int line, const char *what, bool holds)
{
    if (check_true(file, line, what, holds))
        return;
    perror("  errno");
    abort(); /* a fuzzer and a debugger notice it */
}

void check_about(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(about, sizeof about, format, arguments);
    va_end(arguments);
}

void check_run(const char *name, void (*test)(void))
{
    running = name;
    about[0] = '\0';
    tests++;
    test();
}

int check_end(void)
{
    if (failures > 0)
        fprintf(stderr, "%d of %d checks failed\n", failures, checks);
    else
        printf("  %d tests, %d checks\n", tests, checks);
    return failures > 0;
}
