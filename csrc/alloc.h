/* All memory of the core comes from here, so that a test can make the n-th allocation fail. */
#ifndef PW_ALLOC_H
#define PW_ALLOC_H

#include "types.h"

void *pw_alloc(size_t size);
void *pw_realloc(void *old, size_t size);
void pw_free(void *memory);
/*
 * Gives free memory back to the system, where that is much, in a process that has called pw_share_heap.
 * Takes some ms for each 100 MiB of it. True: the heap is large, and may have more to give later.
 */
bool pw_heap_trim(void);
/* The n-th allocation from now on fails, and so do all later
 * ones. 0: none fails. Not thread-safe. */
void pw_alloc_fail_after(long n);

#endif
