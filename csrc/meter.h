/*
 * The meters of --metrics: what each server has counted, in memory that several processes share.
 *
 * A meter belongs to one server, from pw_meter_join to pw_meter_leave or to the end of its process.
 * Its counters are never set back: the next server that takes the meter continues with them. So the
 * sum over all meters never decreases, no matter how a process ends, and no process has to add up
 * what another one has left.
 *
 * Only one thread writes to a meter at a time: the thread that has the lock of its server. So an
 * addition is a load and a store. The reader (metrics_page.c) takes no lock. It may see a request in
 * one counter and not yet in the next one, but it never sees half of a number.
 */
#ifndef PW_METER_H
#define PW_METER_H

#include <stdatomic.h>

#include "text.h"
#include "types.h"

typedef _Atomic(int64_t) pw_counter;

/* The upper bounds of the buckets in microseconds, which are inclusive. One more bucket has none. */
#define PW_BUCKET_BOUNDS(X)                                                                        \
    X(500)                                                                                         \
    X(1000)                                                                                        \
    X(2500)                                                                                        \
    X(5000)                                                                                        \
    X(10000)                                                                                       \
    X(25000)                                                                                       \
    X(50000)                                                                                       \
    X(100000)                                                                                      \
    X(250000)                                                                                      \
    X(500000)                                                                                      \
    X(1000000)                                                                                     \
    X(2500000)                                                                                     \
    X(5000000)                                                                                     \
    X(10000000)                                                                                    \
    X(30000000)
#define PW_BOUND_ONE(us) +1
enum { PW_BOUNDS = PW_BUCKET_BOUNDS(PW_BOUND_ONE) };
#undef PW_BOUND_ONE
extern const int64_t pw_bounds[PW_BOUNDS];

typedef struct {
    pw_counter buckets[PW_BOUNDS + 1]; /* each value is in one of them */
    pw_counter sum;                    /* microseconds */
} pw_histogram;

/* The methods that have a number of their own. The last number is for all others, so no client can
 * make a new one. */
#define PW_METHODS(X) X(GET) X(HEAD) X(POST) X(PUT) X(PATCH) X(DELETE) X(OPTIONS)
typedef enum {
#define PW_METHOD_NAME(name) PW_METHOD_##name,
    PW_METHODS(PW_METHOD_NAME)
#undef PW_METHOD_NAME
        PW_METHOD_OTHER,
    PW_METHOD_COUNT,
} pw_method;

#define PW_CLASSES 5 /* of a status, by its first digit */

typedef struct {
    pw_counter process; /* its number; 0: the meter is free */

    /* Counters. */
    pw_counter requests[PW_METHOD_COUNT][PW_CLASSES]; /* answered by the application */
    pw_histogram duration; /* from the whole head to the end of the response */
    pw_histogram queue;    /* from the whole request to the call of the application */
    pw_counter received, sent;
    pw_counter accepted;
    pw_counter refused_proxies; /* connections that did not begin with a good PROXY header */
    pw_counter refused[PW_ERROR_COUNT + 1]; /* by pw_error */
    pw_counter lost_lines;                  /* of the access log */

    /* Gauges, valid while the meter has a process. */
    pw_counter connections, idle; /* idle: those without a request */
    pw_counter threads;           /* the most that may serve */
    pw_counter busy;              /* threads with a request */
    pw_counter waiting;           /* requests that wait for a thread */
} pw_meter;

static inline int64_t pw_count_of(const pw_counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static inline void pw_count_set(pw_counter *counter, int64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

/* Only the thread that may write to the meter calls this and the next function. */
static inline void pw_count(pw_counter *counter, int64_t more)
{
    pw_count_set(counter, pw_count_of(counter) + more);
}

void pw_histogram_add(pw_histogram *histogram, int64_t microseconds);
/* The number of the method at the beginning of a request line. */
pw_method pw_method_of(const char *line, size_t size);

/* One more call of pw_metrics_free is needed until the memory is unmapped. Returns its argument. */
pw_metrics *pw_metrics_keep(pw_metrics *metrics);

/* A free meter. NULL: there is none. */
pw_meter *pw_meter_join(pw_metrics *metrics);
void pw_meter_leave(pw_meter *meter);

/* ------------------------------------------------------------------ for the reader */

/* The number of meters that were ever taken. */
int pw_metrics_used(const pw_metrics *metrics);
pw_meter *pw_metrics_meter(pw_metrics *metrics, int number);
int64_t pw_metrics_restarts(const pw_metrics *metrics, int reason);
/* The CPU time of processes that have ended, in microseconds. Read it before you look at those that
 * live: a process that ends in between is then missing, and not counted twice. */
int64_t pw_metrics_ended_cpu(const pw_metrics *metrics);
/* The largest sum that was ever passed here: the time of a missing process may not take it back. */
int64_t pw_metrics_show_cpu(pw_metrics *metrics, int64_t sum);

#endif
