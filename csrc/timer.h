/* The timeouts of connections. */
#ifndef PW_TIMER_H
#define PW_TIMER_H

#include "types.h"

typedef enum {
    PW_TIMER_HEAD,
    PW_TIMER_BODY,
    PW_TIMER_WRITE,
    PW_TIMER_KEEP_ALIVE,
    PW_TIMER_LINGER,
    PW_TIMER_RESET,
    PW_TIMER_DRAIN,
    PW_TIMER_QUEUE,
    PW_TIMER_KINDS,
    PW_TIMER_NONE = PW_TIMER_KINDS,
} pw_timer_kind;

/* A member of a connection. All timers of one kind have the same
 * length, so each ring is in order. */
typedef struct pw_timer {
    struct pw_timer *next, *previous; /* borrowed: neighbours in the ring */
    int64_t due;                      /* ms */
    pw_timer_kind kind;
} pw_timer;

typedef struct {
    pw_timer rings[PW_TIMER_KINDS];
    int64_t length[PW_TIMER_KINDS]; /* ms */
    int64_t now;                    /* ms, of the last pw_timers_tick */
    int64_t polled;                 /* ms: events that came before were handled */
} pw_timers;

void pw_timers_init(pw_timers *timers);
void pw_timers_tick(pw_timers *timers);
/* Starts the timer, or starts it again. */
void pw_timer_start(pw_timers *timers, pw_timer *timer, pw_timer_kind kind);
void pw_timer_stop(pw_timer *timer);
/* A timer that was due when the poller was last asked, or NULL. The timer continues to run. */
pw_timer *pw_timers_due(pw_timers *timers);
/* The first timer of this kind, or the first after `after` if that
 * is not NULL. NULL: there is none. */
pw_timer *pw_timers_next(pw_timers *timers, pw_timer_kind kind, const pw_timer *after);
/* ms until the next timer is due; -1: none runs. */
int64_t pw_timers_wait(const pw_timers *timers);

#endif
