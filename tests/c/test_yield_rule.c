/* csrc/yield_rule.c: single samples, and a simulated server with a GIL. */
#include <string.h>

#include "check.h"
#include "yield_rule.h"

#define US ((int64_t)1000)
#define MS ((int64_t)1000000)
#define SECOND (1000 * MS)

/* ------------------------------------------------------------------ samples */

static pw_yield_rule rule;
static int64_t now;

/* A request that was measured in full, beside others that have computed for `each` ns. */
static void learn_beside(int company, int64_t each, int64_t wall, int64_t cpu)
{
    now += wall;
    pw_yield_learn(&rule, &(pw_yield_sample){.now = now,
                                             .wall = wall,
                                             .cpu = cpu,
                                             .waited = cpu < wall,
                                             .company = company,
                                             .others = company * each});
}

static void learn(int64_t wall, int64_t cpu)
{
    learn_beside(0, 0, wall, cpu);
}

static void begin(void)
{
    memset(&rule, 0, sizeof rule);
    now = SECOND;
}

static void a_request_is_timed_now_and_then_and_measured_in_full_after_a_long_one(void)
{
    begin();
    int timed = 0;
    for (int i = 0; i < 1000; i++) {
        pw_yield_measure measure = pw_yield_begin(&rule);
        CHECK(measure != PW_YIELD_USAGE);
        timed += measure == PW_YIELD_TIME;
        if (measure == PW_YIELD_TIME)
            learn(10 * US, -1);
    }
    CHECK_INT(timed, 1000 / PW_YIELD_TIMED);
    learn(PW_YIELD_SHORT_NS, -1);
    for (int i = 0; i < PW_YIELD_LOOKS; i++)
        CHECK_INT(pw_yield_begin(&rule), PW_YIELD_USAGE);
    CHECK(pw_yield_begin(&rule) != PW_YIELD_USAGE);
}

static void two_waiting_requests_are_enough_and_one_is_not(void)
{
    begin();
    learn(MS, 10 * US);
    CHECK(!pw_yield_pays(&rule));
    learn(MS, 10 * US);
    CHECK(pw_yield_pays(&rule));

    begin();
    learn(60 * SECOND, 10 * US); /* no matter how long it is */
    CHECK(!pw_yield_pays(&rule));
}

static void requests_that_compute_never_make_it_pay(void)
{
    begin();
    for (int i = 0; i < 10000; i++) {
        learn(MS, MS);
        learn_beside(3, MS, 50 * MS, 50 * MS);
        now += 3 * MS; /* preempted, without a voluntary switch */
        pw_yield_learn(&rule, &(pw_yield_sample){.now = now, .wall = 3 * MS, .cpu = MS});
    }
    CHECK_INT(rule.off_mean, 0);
}

static void with_company_a_wait_counts_only_once_it_pays_and_less_what_the_others_compute(void)
{
    begin();
    for (int i = 0; i < 100; i++)
        learn_beside(1, 10 * US, MS, 10 * US);
    CHECK_INT(rule.off_mean, 0);
    pw_yield_learn_stall(&rule, now);
    CHECK(pw_yield_pays(&rule));
    for (int i = 0; i < 1000; i++)
        learn_beside(15, 40 * US, MS, 40 * US); /* they have computed for 0.6 ms */
    CHECK(rule.off_mean > 150 * US && rule.off_mean < 400 * US);
    CHECK(pw_yield_pays(&rule));

    begin();
    pw_yield_learn_stall(&rule, now);
    for (int i = 0; i < 100; i++)
        learn_beside(15, 950 * US, 16 * MS, MS); /* it may all have been waiting for the GIL */
    CHECK_INT(rule.off_mean, 0);                 /* because of doubt */
}

/* A wait in which the others have computed all the time says nothing, not even that it was short. */
static void a_wait_that_the_others_explain_completely_changes_nothing(void)
{
    const int64_t others = 4 * MS, explained = others + others / PW_YIELD_MARGIN;
    for (int64_t more = 0; more < 2; more++) {
        begin();
        pw_yield_learn_stall(&rule, now);
        int64_t mean = rule.off_mean, sure = rule.sure_at;
        learn_beside(1, others, explained + MS + more * US, MS);
        CHECK(more ? rule.off_mean < mean : rule.off_mean == mean);
        CHECK_INT(rule.sure_at, more ? now : sure);
    }
}

static void short_requests_end_the_time_when_it_pays(void)
{
    begin();
    pw_yield_learn_stall(&rule, now);
    int count = 0;
    for (; pw_yield_pays(&rule) && count < 10000; count++)
        learn(10 * US, -1);
    CHECK(count < 200);
    for (int i = 0; i < 10000; i++)
        learn(10 * US, -1);
    CHECK_INT(rule.off_mean, 0);
}

static void a_stall_makes_it_pay_at_once_and_lowers_no_mean(void)
{
    begin();
    pw_yield_learn_stall(&rule, now);
    CHECK_INT(rule.off_mean, PW_YIELD_STALL_NS);
    rule.off_mean = 5 * MS;
    pw_yield_learn_stall(&rule, now);
    CHECK_INT(rule.off_mean, 5 * MS);
}

/* ------------------------------------------------------------------ a simulated server */

/*
 * Threads, one GIL, one token, and clients that send their next request at once. A request
 * computes, waits, and computes. A thread that computes has the GIL, and threads get it in the
 * order in which they asked. A thread that takes a request keeps the token until the end, or yields
 * it at once, as the rule says.
 */
enum { THREADS_MOST = 32 };

typedef enum { IDLE, WANTS_GIL, COMPUTES, WAITS } thread_state;

typedef struct {
    int64_t before, wait, after; /* ns */
} request;

typedef struct {
    thread_state state;
    request left;  /* what is left of its request */
    int64_t until; /* COMPUTES, WAITS */
    int64_t asked; /* WANTS_GIL: the time when it asked */
    int64_t taken; /* when it took the request */
    int64_t cpu;
    int64_t part;  /* COMPUTES: how long */
    int64_t world; /* world.cpu when it took the request */
    bool waited, has_token;
    int company;
    pw_yield_measure measure;
} sim_thread;

typedef struct {
    request (*next)(int64_t number);
    int threads, clients;
    sim_thread all[THREADS_MOST];
    int64_t clock, taken, done, yielded;
    int64_t cpu;      /* of all threads */
    int gil, token;   /* a thread, or -1 */
    int long_pollers; /* the last threads, which are always in the application */
} sim;

static sim world;

static int inside(void)
{
    int count = 0;
    for (int i = 0; i < world.threads; i++)
        count += world.all[i].state != IDLE;
    return count;
}

static void take(int number)
{
    sim_thread *self = &world.all[number];
    int others = inside();
    *self = (sim_thread){.state = WANTS_GIL, .asked = world.clock, .taken = world.clock};
    self->left = world.next(world.taken++);
    self->world = world.cpu;
    self->company = others;
    self->measure = pw_yield_begin(&rule);
    for (int i = 0; i < world.threads; i++)
        if (i != number && world.all[i].state != IDLE)
            world.all[i].company++;
    if (pw_yield_pays(&rule)) {
        world.yielded++;
    } else {
        self->has_token = true;
        world.token = number;
    }
}

static void come_back(int number)
{
    sim_thread *self = &world.all[number];
    self->state = IDLE;
    world.done++;
    if (self->has_token)
        world.token = -1;
    if (self->measure == PW_YIELD_NOTHING)
        return;
    pw_yield_learn(&rule, &(pw_yield_sample){
                              .now = world.clock,
                              .wall = world.clock - self->taken,
                              .cpu = self->measure == PW_YIELD_USAGE ? self->cpu : -1,
                              .waited = self->waited,
                              .company = self->company,
                              .others = world.cpu - self->world - self->cpu,
                          });
}

/* A thread has finished its current step. */
static void next_step(int number)
{
    sim_thread *self = &world.all[number];
    if (self->state == COMPUTES) {
        world.gil = -1;
        self->cpu += self->part;
        world.cpu += self->part;
        if (self->left.wait > 0) {
            self->state = WAITS;
            self->until = world.clock + self->left.wait;
            self->left.wait = 0;
            self->waited = true;
            return;
        }
    }
    if (self->left.before == 0 && self->left.after == 0) {
        come_back(number);
        return;
    }
    self->state = WANTS_GIL;
    self->asked = world.clock;
}

static void give_gil(void)
{
    int first = -1;
    for (int i = 0; i < world.threads; i++)
        if (world.all[i].state == WANTS_GIL &&
            (first < 0 || world.all[i].asked < world.all[first].asked))
            first = i;
    if (first < 0)
        return;
    sim_thread *self = &world.all[first];
    int64_t *part = self->left.before > 0 ? &self->left.before : &self->left.after;
    self->waited |= self->asked < world.clock; /* a voluntary switch, too */
    self->state = COMPUTES;
    self->until = world.clock + *part;
    self->part = *part;
    *part = 0;
    world.gil = first;
}

/* Runs for this time. Returns the number of requests. */
static int64_t run(int64_t length)
{
    int64_t end = world.clock + length, before = world.done;
    while (world.clock < end) {
        int busy = inside();
        while (world.token < 0 && busy < world.threads - world.long_pollers && busy < world.clients)
            for (int i = 0; i < world.threads - world.long_pollers; i++)
                if (world.all[i].state == IDLE) {
                    take(i);
                    busy++;
                    break;
                }
        if (world.gil < 0)
            give_gil();
        int next = -1;
        for (int i = 0; i < world.threads; i++)
            if ((world.all[i].state == COMPUTES || world.all[i].state == WAITS) &&
                (next < 0 || world.all[i].until < world.all[next].until))
                next = i;
        REQUIRE(next >= 0);
        world.clock = world.all[next].until;
        next_step(next);
    }
    return world.done - before;
}

static void open_world(request (*next)(int64_t), int threads, int clients)
{
    begin();
    world = (sim){.next = next, .threads = threads, .clients = clients, .gil = -1, .token = -1};
    world.clock = SECOND;
}

static request hello(int64_t number)
{
    (void)number;
    return (request){.before = 5 * US};
}

static request computes(int64_t number)
{
    (void)number;
    return (request){.before = MS};
}

static request waits(int64_t number)
{
    (void)number;
    return (request){.before = 5 * US, .wait = MS, .after = 5 * US};
}

static request waits_little(int64_t number)
{
    (void)number;
    return (request){.before = 5 * US, .wait = 300 * US, .after = 5 * US};
}

/* 40 % plain, 50 % of 1 ms, 10 % of 20 ms. */
static request mixed(int64_t number)
{
    int64_t kind = number * 7 % 10;
    return (request){.before = 5 * US,
                     .wait = kind < 4   ? 0
                             : kind < 9 ? MS
                                        : 20 * MS,
                     .after = 5 * US};
}

/* One request in a hundred waits for 5 ms, the others do not wait. */
static request rarely_waits(int64_t number)
{
    return (request){.before = 5 * US, .wait = number % 100 == 0 ? 5 * MS : 0, .after = 2 * US};
}

static void hello_never_yields(void)
{
    open_world(hello, 16, 32);
    CHECK_INT(run(SECOND), SECOND / (5 * US));
    CHECK_INT(world.yielded, 0);
}

static void a_request_that_computes_never_yields(void)
{
    open_world(computes, 16, 32);
    CHECK_INT(run(SECOND), SECOND / MS);
    CHECK_INT(world.yielded, 0);
}

static void requests_that_wait_use_all_threads(void)
{
    open_world(waits, 16, 32);
    run(20 * MS);
    CHECK(run(SECOND) >= 16 * 1000 * 95 / 100);
    open_world(waits_little, 16, 32);
    run(20 * MS);
    CHECK(run(SECOND) >= 16 * 3333 * 75 / 100);
    open_world(waits, 16, 4); /* fewer clients than threads */
    run(20 * MS);
    CHECK(run(SECOND) >= 4 * 1000 * 95 / 100);
}

static void mixed_traffic_uses_all_threads(void)
{
    open_world(mixed, 16, 32);
    run(100 * MS);
    int64_t ideal = 16 * SECOND / ((5 * MS + 20 * MS) / 10);
    CHECK(run(SECOND) >= ideal * 95 / 100);
}

static void a_rare_wait_does_not_make_the_others_yield_for_long(void)
{
    open_world(rarely_waits, 16, 32);
    run(SECOND);
    CHECK(world.yielded < world.taken / 2);
}

static void the_rule_adapts_within_200_ms(void)
{
    open_world(hello, 16, 32);
    run(SECOND);
    world.next = waits;
    run(200 * MS);
    CHECK(run(100 * MS) >= 16 * 100 * 9 / 10);
    world.next = hello;
    run(200 * MS);
    int64_t before = world.yielded;
    run(100 * MS);
    CHECK_INT(world.yielded, before);
    world.next = mixed;
    run(SECOND);
    world.next = computes;
    run(200 * MS);
    before = world.yielded;
    run(500 * MS);
    CHECK_INT(world.yielded, before);
}

int main(void)
{
    RUN(a_request_is_timed_now_and_then_and_measured_in_full_after_a_long_one);
    RUN(two_waiting_requests_are_enough_and_one_is_not);
    RUN(requests_that_compute_never_make_it_pay);
    RUN(with_company_a_wait_counts_only_once_it_pays_and_less_what_the_others_compute);
    RUN(a_wait_that_the_others_explain_completely_changes_nothing);
    RUN(short_requests_end_the_time_when_it_pays);
    RUN(a_stall_makes_it_pay_at_once_and_lowers_no_mean);
    RUN(hello_never_yields);
    RUN(a_request_that_computes_never_yields);
    RUN(requests_that_wait_use_all_threads);
    RUN(mixed_traffic_uses_all_threads);
    RUN(a_rare_wait_does_not_make_the_others_yield_for_long);
    RUN(the_rule_adapts_within_200_ms);
    return check_end();
}
