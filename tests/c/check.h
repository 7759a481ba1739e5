/*
 * The checks of the C tests. A test is a function whose name is a sentence. A failed check prints
 * its place, the expected value and the actual one, and the test continues.
 */
#ifndef PW_CHECK_H
#define PW_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CHECK(condition) check_true(__FILE__, __LINE__, #condition, (condition))
#define CHECK_INT(got, expected)                                                                   \
    check_int(__FILE__, __LINE__, #got, (int64_t)(got), (int64_t)(expected))
/* Compares bytes with a literal, which may contain NUL. */
#define CHECK_BYTES(got, size, expected)                                                           \
    check_bytes(__FILE__, __LINE__, #got, (got), (size), (expected), sizeof(expected) - 1)
/* Compares bytes with a string. */
#define CHECK_STRING(got, size, expected)                                                          \
    check_bytes(__FILE__, __LINE__, #got, (got), (size), (expected), strlen(expected))
/* Compares a test_text with a literal. */
#define CHECK_TEXT(text, expected) CHECK_BYTES((text)->at, (text)->size, (expected))
/* Checks that a test_text contains a literal. */
#define CHECK_HOLDS(text, part)                                                                    \
    check_holds(__FILE__, __LINE__, #text, (text), (part), sizeof(part) - 1)
/* Ends the program if the condition is false, because the rest of the test would make no sense. */
#define REQUIRE(condition) check_required(__FILE__, __LINE__, #condition, (condition))
/* Adds this text to the messages of failed checks, until the next call: it names the case. */
#define ABOUT(...) check_about(__VA_ARGS__)
#define RUN(test) check_run(#test, (test))
#define LITERAL(text) (text), sizeof(text) - 1

/* Bytes that grow. All zero is empty. */
typedef struct {
    char *at; /* owned */
    size_t size;
    size_t room;
} test_text;

void text_add(test_text *text, const char *data, size_t size);
void text_add_string(test_text *text, const char *string);
void text_clear(test_text *text);
void text_free(test_text *text);
bool text_same(const test_text *a, const test_text *b);

bool check_true(const char *file, int line, const char *what, bool holds);
bool check_int(const char *file, int line, const char *what, int64_t got, int64_t expected);
bool check_bytes(const char *file, int line, const char *what, const char *got, size_t size,
                 const char *expected, size_t expected_size);
bool check_holds(const char *file, int line, const char *what, const test_text *text,
                 const char *part, size_t size);
void check_required(const char *file, int line, const char *what, bool holds);
__attribute__((format(printf, 1, 2))) void check_about(const char *format, ...);
void check_run(const char *name, void (*test)(void));
/* The result for main. */
int check_end(void);

#endif
