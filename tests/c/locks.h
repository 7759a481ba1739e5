/* See locks.c. */
#ifndef PW_LOCKS_H
#define PW_LOCKS_H

/* How many locks the calling thread holds. */
int locks_held(void);

#endif
