/* Comparison of a head with the previous head of the same connection. */
#ifndef PW_LINES_H
#define PW_LINES_H

#include "head.h"

/* A field line of a kept head, or several of them. */
typedef struct {
    uint32_t size;      /* with its CRLF */
    uint32_t name_size; /* with its colon; 0: the line must not change */
    uint8_t number;
} pw_line;

typedef struct {
    size_t count;
    pw_line lines[];
} pw_lines;

/* The lines of the valid head at `data`, which begins with its
 * request line. NULL: out of memory. */
pw_lines *pw_lines_new(const pw_head *head, const char *data);

#define PW_CHANGES_MOST 8
typedef struct {
    size_t count;
    struct pw_change {
        uint8_t number;
        pw_span value; /* borrowed: points into the new head */
    } items[PW_CHANGES_MOST];
} pw_changes;
typedef struct pw_change pw_change;

/*
 * Whether data[0, size) begins with the same field lines as `before`, except for the values of a
 * few. Both begin after the request line. Returns the size of the lines with the empty line, or 0:
 * no.
 */
size_t pw_lines_follow(const pw_lines *lines, const char *before, const char *data, size_t size,
                       pw_changes *changes);

#endif
