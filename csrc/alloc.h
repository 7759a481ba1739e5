/* All memory of the core comes from here, so that a test can make the n-th allocation fail. */
#ifndef PW_ALLOC_H
#define PW_ALLOC_H

#include "types.h"

void *pw_alloc(size_t size);
void *pw_realloc(void *old, size_t size);
void pw_free(void *memory);
/* The n-th allocation from now on fails, and all after it; 0: none. Not thread-safe. */
void pw_alloc_fail_after(long n);

#endif
