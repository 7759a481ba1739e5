/* What the system says about a process. */
#ifndef PW_PROCESS_H
#define PW_PROCESS_H

#include "types.h"

typedef struct {
    int64_t cpu;      /* microseconds of CPU time, without its children */
    int64_t resident; /* bytes in memory */
    int64_t age;      /* milliseconds since its start */
} pw_process;

/* Also of a process that has ended and that its parent has not waited for. False: the system does
 * not say, or there is no such process. */
bool pw_process_look(int32_t process, pw_process *facts);
bool pw_process_exists(int32_t process);

#endif
