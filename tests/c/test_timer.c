/* csrc/timer.c, with a clock that the test sets. */
#include "check.h"
#include "timer.h"

static pw_timer idle(void)
{
    return (pw_timer){.kind = PW_TIMER_NONE};
}

/* As if the poller had been asked at this time. */
static void set_clock(pw_timers *timers, int64_t now)
{
    timers->now = timers->polled = now;
}

static void begin(pw_timers *timers)
{
    pw_timers_init(timers);
    set_clock(timers, 1000);
    timers->length[PW_TIMER_HEAD] = 100;
    timers->length[PW_TIMER_BODY] = 300;
    timers->length[PW_TIMER_WRITE] = 300;
    timers->length[PW_TIMER_KEEP_ALIVE] = 50;
    timers->length[PW_TIMER_LINGER] = 20;
}

static void without_timers_nothing_is_due_and_the_poller_waits_for_none(void)
{
    pw_timers timers;
    begin(&timers);
    CHECK(pw_timers_due(&timers) == NULL);
    CHECK_INT(pw_timers_wait(&timers), -1);
}

static void the_clock_goes_forward(void)
{
    pw_timers timers;
    pw_timers_init(&timers);
    int64_t before = timers.now;
    pw_timers_tick(&timers);
    CHECK(before > 0 && timers.now >= before);
}

static void timers_of_all_kinds_expire_in_their_order(void)
{
    pw_timers timers;
    begin(&timers);
    pw_timer body = idle(), first = idle(), second = idle(), rest = idle();
    pw_timer_start(&timers, &body, PW_TIMER_BODY);  /* due at 1300 */
    pw_timer_start(&timers, &first, PW_TIMER_HEAD); /* due at 1100 */
    set_clock(&timers, 1010);
    pw_timer_start(&timers, &second, PW_TIMER_HEAD);     /* due at 1110 */
    pw_timer_start(&timers, &rest, PW_TIMER_KEEP_ALIVE); /* due at 1060 */
    CHECK_INT(pw_timers_wait(&timers), 50);
    set_clock(&timers, 1059);
    CHECK(pw_timers_due(&timers) == NULL);
    set_clock(&timers, 1060);
    CHECK(pw_timers_due(&timers) == &rest);
    pw_timer_stop(&rest);
    CHECK(pw_timers_due(&timers) == NULL);
    set_clock(&timers, 2000);
    CHECK_INT(pw_timers_wait(&timers), 0);
    CHECK(pw_timers_due(&timers) == &first);
    pw_timer_stop(&first);
    CHECK(pw_timers_due(&timers) == &second);
    pw_timer_stop(&second);
    CHECK(pw_timers_due(&timers) == &body);
    pw_timer_stop(&body);
    CHECK_INT(pw_timers_wait(&timers), -1);
}

static void a_restarted_timer_goes_to_the_end(void)
{
    pw_timers timers;
    begin(&timers);
    pw_timer one = idle(), two = idle();
    pw_timer_start(&timers, &one, PW_TIMER_HEAD);
    pw_timer_start(&timers, &two, PW_TIMER_HEAD);
    set_clock(&timers, 1050);
    pw_timer_start(&timers, &one, PW_TIMER_HEAD);
    set_clock(&timers, 1149);
    CHECK(pw_timers_due(&timers) == &two);
    pw_timer_stop(&two);
    CHECK(pw_timers_due(&timers) == NULL);
    CHECK_INT(pw_timers_wait(&timers), 1);
    pw_timer_start(&timers, &one, PW_TIMER_KEEP_ALIVE); /* another kind: it leaves the first ring */
    CHECK_INT(pw_timers_wait(&timers), 50);
    pw_timer_stop(&one);
    CHECK_INT(pw_timers_wait(&timers), -1);
}

static void a_timer_is_not_due_before_the_poller_has_run(void)
{
    pw_timers timers;
    begin(&timers);
    pw_timer one = idle();
    pw_timer_start(&timers, &one, PW_TIMER_HEAD);
    timers.now = 2000; /* its bytes may have arrived by now */
    CHECK(pw_timers_due(&timers) == NULL);
    CHECK_INT(pw_timers_wait(&timers), 0);
    timers.polled = 2000;
    CHECK(pw_timers_due(&timers) == &one);
    pw_timer_stop(&one);
}

static void a_timer_may_be_stopped_in_the_middle_and_twice(void)
{
    pw_timers timers;
    begin(&timers);
    pw_timer three[3] = {idle(), idle(), idle()};
    for (int i = 0; i < 3; i++)
        pw_timer_start(&timers, &three[i], PW_TIMER_LINGER);
    pw_timer_stop(&three[1]);
    pw_timer_stop(&three[1]);
    set_clock(&timers, 1020);
    CHECK(pw_timers_due(&timers) == &three[0]);
    pw_timer_stop(&three[0]);
    CHECK(pw_timers_due(&timers) == &three[2]);
    pw_timer_stop(&three[2]);
    CHECK(pw_timers_due(&timers) == NULL);
}

int main(void)
{
    RUN(without_timers_nothing_is_due_and_the_poller_waits_for_none);
    RUN(the_clock_goes_forward);
    RUN(timers_of_all_kinds_expire_in_their_order);
    RUN(a_restarted_timer_goes_to_the_end);
    RUN(a_timer_is_not_due_before_the_poller_has_run);
    RUN(a_timer_may_be_stopped_in_the_middle_and_twice);
    return check_end();
}
