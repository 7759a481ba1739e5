/* What the system says about a process. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "process.h"
#include "system.h"

#if PW_LINUX

/* proc_pid_stat(5): the fields after the name of the program, which may contain any byte. */
enum { FIELD_STATE = 3, FIELD_UTIME = 14, FIELD_STIME = 15, FIELD_START = 22, FIELD_RSS = 24 };

/* Reads the fields FIELD_STATE + 1 to FIELD_RSS of a text that ends with NUL. False: it is short. */
static bool read_fields(const char *text, int64_t fields[FIELD_RSS + 1])
{
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ' || at[2] == '\0')
        return false;
    at += 3; /* behind the state, which is a letter */
    for (int i = FIELD_STATE + 1; i <= FIELD_RSS; i++) {
        char *end;
        fields[i] = strtoll(at, &end, 10);
        if (end == at)
            return false;
        at = end;
    }
    return true;
}

bool pw_process_look(int32_t process, pw_process *facts)
{
    char name[40], text[1024];
    int64_t fields[FIELD_RSS + 1];
    snprintf(name, sizeof name, "/proc/%d/stat", (int)process);
    int file = open(name, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    if (size <= 0)
        return false;
    text[size] = '\0';
    int64_t ticks = sysconf(_SC_CLK_TCK), page = sysconf(_SC_PAGESIZE);
    if (ticks <= 0 || !read_fields(text, fields))
        return false;
    facts->cpu = (fields[FIELD_UTIME] + fields[FIELD_STIME]) * 1000000 / ticks;
    facts->resident = fields[FIELD_RSS] * page;
    facts->age = pw_clock_ns(CLOCK_BOOTTIME) / 1000000 - fields[FIELD_START] * 1000 / ticks;
    return true;
}

#else

bool pw_process_look(int32_t process, pw_process *facts)
{
    (void)process;
    (void)facts;
    return false;
}

#endif

bool pw_process_exists(int32_t process)
{
    return kill((pid_t)process, 0) == 0 || errno == EPERM;
}
