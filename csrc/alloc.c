/* All calls of the system's allocator, and the heap of a process. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "alloc.h"

static long allocations_left = -1; /* -1: none is to fail; only tests change it */

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

#ifdef __GLIBC__

#define PW_HEAP_KEPT (8 << 20)    /* free bytes that the process keeps */
#define PW_HEAP_LARGE (64u << 20) /* bytes; a heap from this size on is trimmed again later */

/* Whether pw_heap_trim returns free memory to the system. Set before there are threads. */
static bool heap_is_trimmed;

/* Whether the user has not chosen the value, in either of the two places that glibc reads. */
static bool is_unset(const char *variable, const char *tunable)
{
    const char *tunables = getenv("GLIBC_TUNABLES");
    return getenv(variable) == NULL && (tunables == NULL || strstr(tunables, tunable) == NULL);
}

void pw_share_heap(void)
{
    if (is_unset("MALLOC_ARENA_MAX", "glibc.malloc.arena_max"))
        mallopt(M_ARENA_MAX, 1);
    /* Keeps memory for content of a megabyte, instead of returning it to the system and asking for
     * it again with each request. */
    if (is_unset("MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold"))
        mallopt(M_MMAP_THRESHOLD, 2 << 20);
    heap_is_trimmed = is_unset("MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold");
    if (heap_is_trimmed)
        mallopt(M_TRIM_THRESHOLD, PW_HEAP_KEPT);
}

bool pw_heap_trim(void)
{
    if (!heap_is_trimmed)
        return false;
#if __GLIBC_PREREQ(2, 33)
    struct mallinfo2 heap = mallinfo2();
    size_t unused = heap.fordblks, size = heap.arena;
#else
    struct mallinfo heap = mallinfo();
    size_t unused = (unsigned)heap.fordblks, size = (unsigned)heap.arena;
#endif
    /* glibc itself returns only memory at the end of the heap, not between used blocks. */
    if (unused > 2 * PW_HEAP_KEPT)
        malloc_trim(PW_HEAP_KEPT);
    return size > PW_HEAP_LARGE;
}

#else

void pw_share_heap(void)
{
}

bool pw_heap_trim(void)
{
    return false;
}

#endif
