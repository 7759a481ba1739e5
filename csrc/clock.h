/* The time of day and the monotonic clock. */
#ifndef PW_CLOCK_H
#define PW_CLOCK_H

#include <time.h>

#include "types.h"

/* Milliseconds of the monotonic clock, to about 4 ms where that is cheaper. */
int64_t pw_now(void);
int64_t pw_microseconds(void);
int64_t pw_nanoseconds(void);
int64_t pw_clock_ns(clockid_t clock);

/* The Date field, made again each second. */
typedef struct {
    int64_t second;
    char date[48]; /* "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" */
    size_t size;
} pw_clock;

void pw_clock_tick(pw_clock *clock);

#endif
