/* The monotonic clock, for timers and measurements, and the Date field of a response. */
#include <stdio.h>

#include "clock.h"

int64_t pw_now(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    const clockid_t clock = CLOCK_MONOTONIC_COARSE; /* exact to about 4 ms, and cheap */
#else
    const clockid_t clock = CLOCK_MONOTONIC;
#endif
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t pw_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t pw_nanoseconds(void)
{
    return pw_clock_ns(CLOCK_MONOTONIC);
}

int64_t pw_microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void pw_clock_tick(pw_clock *clock)
{
    time_t now = time(NULL);
    if ((int64_t)now == clock->second && clock->size != 0)
        return;
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;
    gmtime_r(&now, &tm);
    clock->second = (int64_t)now;
    int size =
        snprintf(clock->date, sizeof clock->date, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n",
                 days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour,
                 tm.tm_min, tm.tm_sec); /* strftime would take names of days from the locale */
    clock->size = size > 0 && (size_t)size < sizeof clock->date ? (size_t)size : 0;
}
