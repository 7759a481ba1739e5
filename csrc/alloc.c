/* The core's only way to the allocator, and the heap of a process. */
#include <errno.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "alloc.h"

static long allocations_left = -1; /* -1: no failure asked for; used by tests alone */

static bool alloc_refused(void)
{
    if (allocations_left < 0)
        return false;
    if (allocations_left > 0)
        allocations_left--;
    if (allocations_left == 0)
        errno = ENOMEM;
    return allocations_left == 0;
}

void pw_alloc_fail_after(long n)
{
    allocations_left = n > 0 ? n : -1;
}

void *pw_alloc(size_t size)
{
    return alloc_refused() ? NULL : calloc(1, size);
}

void *pw_realloc(void *old, size_t size)
{
    return alloc_refused() ? NULL : realloc(old, size);
}

void pw_free(void *memory)
{
    free(memory);
}

void pw_share_heap(void)
{
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1);
    /* Content of a megabyte is not given back to the system and asked for again for each request. */
    mallopt(M_MMAP_THRESHOLD, 2 << 20);
    mallopt(M_TRIM_THRESHOLD, 8 << 20);
#endif
}
