/*
 * When a serving thread yields the loop before it calls the application: a function of samples, without
 * a clock, a lock or a thread. token.c takes the samples and does what follows from the answer.
 *
 * The question. A thread that has taken a request can keep the token: nobody is woken, and the next
 * request waits until the application returns. Or it can yield: another thread goes on with the loop at
 * once, which costs a wake-up. Yielding pays exactly when a request spends more time off the CPU, on
 * average, than the wake-up costs: about 2 us on one core, 18 us between two cores of a virtual machine.
 *
 * What is measured. One request in PW_YIELD_TIMED is timed by the monotonic clock (21 ns), from the take
 * to the thread's next call into the core, before it waits for the core's lock. If one takes
 * PW_YIELD_SHORT_NS or longer, the next PW_YIELD_LOOKS requests are also measured by the thread's CPU
 * time and its voluntary switches (getrusage, 213 ns), at both ends: each of them while threads keep the
 * token, one in PW_YIELD_SPARSE while they yield it. The time off the CPU counts only
 * with a voluntary switch: a thread that was merely preempted has not waited for anything.
 *
 * What it does not tell. A thread that waits for the GIL is off the CPU by a voluntary switch, too. So
 * a sample is clean only if its thread was alone in the application. With company, what the process has
 * computed in other threads meanwhile is subtracted, and a quarter more: the GIL was held for no longer.
 * What is left counts, but only while the rule says yes already. (A bound by the mean of a request, three
 * times for each of 15 others, was tried before. It was larger than a wait of 1 ms where a request costs
 * 25 us, so that doubt came ten times a second: 4 % of the throughput, and 5.4 ms instead of 3.4 at the
 * 99th percentile.)
 *
 * Doubt. While the threads yield, a sample is rarely clean. After a time without a sure sample, or a
 * longer one without a clean one, the mean is set to nothing: then requests run one at a time, and the
 * next two clean samples decide again.
 */
#ifndef PW_YIELD_RULE_H
#define PW_YIELD_RULE_H

#include <stdbool.h>
#include <stdint.h>

#define PW_YIELD_MEAN_NS 25000
/* Shorter requests gain nothing by a hand-over, so that they are not worth a system call to measure. */
#define PW_YIELD_SHORT_NS 50000
/* The weight of a sample is 1/32: two clean waits of PW_YIELD_FIRST_NS make the mean. */
#define PW_YIELD_WEIGHT 32
/* While the rule says no, one sample counts at most this: a single outlier does not change the answer. */
#define PW_YIELD_FIRST_NS 500000
/* While it says yes: a request of a minute does not decide about the next thousand. */
#define PW_YIELD_MOST_NS 10000000
#define PW_YIELD_TIMED 4
#define PW_YIELD_SPARSE 16 /* the clock of the process costs 1 us with 16 threads */
#define PW_YIELD_LOOKS 64
/* Of what others compute, one part in so many more: switches, and clocks that are read late. */
#define PW_YIELD_MARGIN 4
/*
 * Without a sure sample for as long as 40 requests take alone, and 100 ms at least; without a clean one
 * for 30 times that. A doubt costs two requests that run alone.
 */
#define PW_YIELD_DOUBT_NS 100000000
#define PW_YIELD_DOUBT_REQUESTS 40
#define PW_YIELD_DOUBT_CLEAN 30
/* A stalled thread that was seen to wait has waited for a tick of the watcher at least. */
#define PW_YIELD_STALL_NS 2000000

/* All zero is the start. Times are nanoseconds. */
typedef struct {
    int64_t off_mean; /* of a request: off the CPU */
    int64_t cpu_mean; /* of a request: on it */
    int64_t sure_at;  /* when a sample last counted */
    int64_t clean_at; /* when one that was clean did */
    uint32_t taken;   /* requests so far */
    uint32_t looks;   /* requests that are still to be measured in full */
} pw_yield_rule;

/* What a request is measured by. */
typedef enum { PW_YIELD_NOTHING, PW_YIELD_TIME, PW_YIELD_USAGE } pw_yield_measure;

/* What was measured of one request. */
typedef struct {
    int64_t now;     /* when it was over */
    int64_t wall;    /* how long it took */
    int64_t cpu;     /* on the CPU; -1: not measured */
    bool waited;     /* with a voluntary switch */
    int32_t company; /* other threads in the application meanwhile; 0: the sample is clean */
    int64_t others;  /* what the process has computed meanwhile, but for this thread */
} pw_yield_sample;

/* A thread takes a request: what is to be measured of it? */
pw_yield_measure pw_yield_begin(pw_yield_rule *rule);
void pw_yield_learn(pw_yield_rule *rule, const pw_yield_sample *sample);
/* The watcher has seen that a request has taken long, and that all threads in the application wait. */
void pw_yield_learn_stall(pw_yield_rule *rule, int64_t now);

/* Whether a thread yields the loop. */
static inline bool pw_yield_pays(const pw_yield_rule *rule)
{
    return rule->off_mean >= PW_YIELD_MEAN_NS;
}

#endif
