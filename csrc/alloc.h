/* All memory of the core comes from here, so that a test can make the n-th allocation fail. */
#ifndef PW_ALLOC_H
#define PW_ALLOC_H

#include "types.h"

void *pw_alloc(size_t size);
void *pw_realloc(void *old, size_t size);
void pw_free(void *memory);
/*
 * Returns free memory to the system, if there is much, in a process that has called pw_share_heap.
 * Takes some ms for each 100 MiB. True: the heap is still large, so call this again later.
 */
bool pw_heap_trim(void);
/* The n-th allocation from now on fails, and so do all later
 * ones. 0: none fails. Not thread-safe. */
void pw_alloc_fail_after(long n);

#endif
