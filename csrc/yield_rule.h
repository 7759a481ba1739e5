/*
 * The rule by which a serving thread yields the loop before it calls the application. It is a
 * function of samples, without a clock, a lock or a thread. token.c takes the samples and acts on
 * the answer.
 *
 * The question: a thread that has taken a request can keep the token. Then no thread is woken, and
 * the next request waits until the application returns. Or it can yield: another thread continues
 * the loop at once, which costs a wake-up. Yielding pays if a request spends more time off the CPU,
 * on average, than the wake-up costs: about 2 us on one core, 18 us between two cores of a virtual
 * machine.
 *
 * The measurement: one request in PW_YIELD_TIMED is timed by the monotonic clock (21 ns). The time
 * runs from the take of the request to the thread's next call into the core, before the thread
 * waits for the core's lock. If a request takes PW_YIELD_SHORT_NS or longer, the next
 * PW_YIELD_LOOKS requests are measured in full: also by the thread's CPU time and its
 * voluntary switches (getrusage, 213 ns), at both ends. While threads keep the token each of these
 * requests is measured, while they yield it one in PW_YIELD_SPARSE. The time off the CPU counts
 * only with a voluntary switch: a thread that was merely preempted has not waited.
 *
 * The GIL: a thread that waits for the GIL is off the CPU after a voluntary switch, too. So a
 * sample is clean only if its thread was alone in the application. If it was not, the rule
 * subtracts the CPU time of the other threads meanwhile, and a quarter more, because the GIL was
 * held for no longer. The rest counts, but only while the rule already says yes. (An earlier bound
 * was the mean of a request, three times for each of 15 other threads. Where a request costs 25 us
 * it was larger than a wait of 1 ms. So doubt came ten times a second: 4 % of the throughput, and
 * 5.4 ms instead of 3.4 at the 99th percentile.)
 *
 * Doubt: while the threads yield, a sample is rarely clean. After a time without a sure sample, or
 * a longer time without a clean one, the mean is set to 0. Then requests run one at a time, and the
 * next two clean samples decide again.
 */
#ifndef PW_YIELD_RULE_H
#define PW_YIELD_RULE_H

#include <stdbool.h>
#include <stdint.h>

#define PW_YIELD_MEAN_NS 25000
/* A hand-over gains nothing for a shorter request, so it is not worth a system call to measure. */
#define PW_YIELD_SHORT_NS 50000
/* The weight of a sample is 1/32: two clean waits of
 * PW_YIELD_FIRST_NS raise the mean to the limit. */
#define PW_YIELD_WEIGHT 32
/* The most that one sample counts while the rule says no: one
 * outlier does not change the answer. */
#define PW_YIELD_FIRST_NS 500000
/* The most while it says yes: one request of a minute does not decide the next thousand. */
#define PW_YIELD_MOST_NS 10000000
#define PW_YIELD_TIMED 4
#define PW_YIELD_SPARSE 16 /* reading the clock of the process costs 1 us with 16 threads */
#define PW_YIELD_LOOKS 64
/* This part more of the CPU time of other threads: for switches,
 * and for clocks that are read late. */
#define PW_YIELD_MARGIN 4
/*
 * Doubt comes if there was no sure sample for the time of 40 requests that run alone, and for at
 * least 100 ms, or no clean sample for 30 times that. A doubt costs two requests that run alone.
 */
#define PW_YIELD_DOUBT_NS 100000000
#define PW_YIELD_DOUBT_REQUESTS 40
#define PW_YIELD_DOUBT_CLEAN 30
/* A stalled thread that waits has waited for one tick of the watcher at least. */
#define PW_YIELD_STALL_NS 2000000

/* All zero is the start. Times are nanoseconds. */
typedef struct {
    int64_t off_mean; /* of a request: time off the CPU */
    int64_t cpu_mean; /* of a request: CPU time */
    int64_t sure_at;  /* time of the last sample that counted */
    int64_t clean_at; /* time of the last clean sample */
    uint32_t taken;   /* requests so far */
    uint32_t looks;   /* requests that are still to be measured in full */
} pw_yield_rule;

/* How a request is measured. */
typedef enum { PW_YIELD_NOTHING, PW_YIELD_TIME, PW_YIELD_USAGE } pw_yield_measure;

/* The measurement of one request. */
typedef struct {
    int64_t now;     /* the time when the request ended */
    int64_t wall;    /* duration */
    int64_t cpu;     /* CPU time; -1: not measured */
    bool waited;     /* the thread made a voluntary switch */
    int32_t company; /* other threads in the application meanwhile; 0: the sample is clean */
    int64_t others;  /* CPU time of all other threads of the process meanwhile */
} pw_yield_sample;

/* A thread takes a request. Returns how to measure it. */
pw_yield_measure pw_yield_begin(pw_yield_rule *rule);
void pw_yield_learn(pw_yield_rule *rule, const pw_yield_sample *sample);
/* A request has taken long, and the watcher has seen that all threads in the application wait. */
void pw_yield_learn_stall(pw_yield_rule *rule, int64_t now);

/* Whether a thread yields the loop now. */
static inline bool pw_yield_pays(const pw_yield_rule *rule)
{
    return rule->off_mean >= PW_YIELD_MEAN_NS;
}

#endif
