/* The timeouts of connections: one ring for each kind, in the order in which its timers expire. */
#include <time.h>

#include "clock.h"
#include "timer.h"

void pw_timers_init(pw_timers *timers)
{
    for (int kind = 0; kind < PW_TIMER_KINDS; kind++) {
        pw_timer *ring = &timers->rings[kind];
        ring->next = ring->previous = ring;
    }
    pw_timers_tick(timers);
}

void pw_timers_tick(pw_timers *timers)
{
    timers->now = pw_now();
}

static void timer_unlink(pw_timer *timer)
{
    timer->next->previous = timer->previous;
    timer->previous->next = timer->next;
}

void pw_timer_start(pw_timers *timers, pw_timer *timer, pw_timer_kind kind)
{
    if (timer->kind != PW_TIMER_NONE)
        timer_unlink(timer);
    pw_timer *ring = &timers->rings[kind];
    timer->kind = kind;
    timer->due = timers->now + timers->length[kind];
    timer->next = ring;
    timer->previous = ring->previous;
    ring->previous->next = timer;
    ring->previous = timer;
}

void pw_timer_stop(pw_timer *timer)
{
    if (timer->kind == PW_TIMER_NONE)
        return;
    timer_unlink(timer);
    timer->kind = PW_TIMER_NONE;
}

pw_timer *pw_timers_due(pw_timers *timers)
{
    for (int kind = 0; kind < PW_TIMER_KINDS; kind++) {
        pw_timer *first = timers->rings[kind].next;
        if (first != &timers->rings[kind] && first->due <= timers->polled)
            return first;
    }
    return NULL;
}

pw_timer *pw_timers_next(pw_timers *timers, pw_timer_kind kind, const pw_timer *after)
{
    pw_timer *ring = &timers->rings[kind];
    pw_timer *next = after != NULL ? after->next : ring->next;
    return next != ring ? next : NULL;
}

int64_t pw_timers_wait(const pw_timers *timers)
{
    int64_t least = -1;
    for (int kind = 0; kind < PW_TIMER_KINDS; kind++) {
        const pw_timer *first = timers->rings[kind].next;
        if (first == &timers->rings[kind])
            continue;
        int64_t left = first->due > timers->now ? first->due - timers->now : 0;
        if (least < 0 || left < least)
            least = left;
    }
    return least;
}
