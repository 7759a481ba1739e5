/*
 * What every C test is made of. A test is a function whose name is a sentence; a check that fails
 * says where, what was expected and what was there, and the test goes on.
 */
#ifndef PW_CHECK_H
#define PW_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK(condition) check_true(__FILE__, __LINE__, #condition, (condition))
#define CHECK_INT(got, expected)                                                                   \
    check_int(__FILE__, __LINE__, #got, (int64_t)(got), (int64_t)(expected))
/* Bytes against a literal, which may hold NUL. */
#define CHECK_BYTES(got, size, expected)                                                           \
    check_bytes(__FILE__, __LINE__, #got, (got), (size), (expected), sizeof(expected) - 1)
/* What is in a test_text, against a literal. */
#define CHECK_TEXT(text, expected) CHECK_BYTES((text)->at, (text)->size, (expected))
/* That a test_text holds a literal somewhere. */
#define CHECK_HOLDS(text, part)                                                                    \
    check_holds(__FILE__, __LINE__, #text, (text), (part), sizeof(part) - 1)
/* Nothing after it would make sense: ends the program. */
#define REQUIRE(condition) check_required(__FILE__, __LINE__, #condition, (condition))
/* Adds to what a failing check says, until the next call: which case of many this is. */
#define ABOUT(...) check_about(__VA_ARGS__)
#define RUN(test) check_run(#test, (test))
#define LITERAL(text) (text), sizeof(text) - 1

/* Bytes that grow; all zero is empty. */
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
/* What main returns. */
int check_end(void);

#endif
