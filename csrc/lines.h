/* A head that is like the one before it. */
#ifndef PW_LINES_H
#define PW_LINES_H

#include "head.h"

/* A field line, or several, of a head that is kept. */
typedef struct {
    uint32_t size;      /* with its CRLF */
    uint32_t name_size; /* with its colon; 0: the line has to stay as it is */
    uint8_t number;
} pw_line;

typedef struct {
    size_t count;
    pw_line lines[];
} pw_lines;

/* The lines of the valid head at data, which begins with its request line. NULL: out of memory. */
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
 * Whether data[0, size) begins with field lines that are those at `before`, but for the values of a few:
 * what a head may have behind its request line. Returns their size with the empty line, or 0.
 */
size_t pw_lines_follow(const pw_lines *lines, const char *before, const char *data, size_t size,
                       pw_changes *changes);

#endif
