/* Checks every lock of the core: see locks.c. */
#ifndef PW_LOCKS_H
#define PW_LOCKS_H

/* The number of locks that the calling thread holds. */
int locks_held(void);

#endif
