/* The meters of --metrics: what each server has counted, in memory that several processes share. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc.h"
#include "meter.h"
#include "process.h"

#define PW_METERS 2048       /* servers without a meter are not counted */
#define PW_METER_SPACE 4096  /* bytes: a page of its own, so processes do not share a cache line */
#define PW_CLAIMED (-1)      /* a server takes this meter, and has not stored its process yet */
#define PW_LAYOUT 0x70770001 /* another number for each layout of this memory */

const int64_t pw_bounds[PW_BOUNDS] = {
#define PW_BOUND(us) us,
    PW_BUCKET_BOUNDS(PW_BOUND)
#undef PW_BOUND
};

typedef union {
    pw_meter meter;
    char space[PW_METER_SPACE];
} pw_meter_page;

_Static_assert(sizeof(pw_meter) <= PW_METER_SPACE, "a meter fits into its page");

/* Any process may write to the members before `meters`, so these are added to atomically. */
typedef struct {
    union {
        struct {
            pw_counter layout; /* 0: new memory */
            pw_counter used;   /* no meter from here on was ever taken */
            pw_counter restarts[PW_RESTART_REASONS];
            pw_counter ended_cpu; /* microseconds, of processes that have ended */
            pw_counter shown_cpu; /* the largest sum of pw_metrics_show_cpu */
        };
        char space[PW_METER_SPACE];
    };
    pw_meter_page meters[PW_METERS];
} pw_shared;

/* This process's mapping of the memory. */
struct pw_metrics {
    pw_shared *memory;
    atomic_int references; /* the maker, the servers and the exporter; the last one unmaps it */
};

int64_t pw_metrics_size(void)
{
    return (int64_t)sizeof(pw_shared);
}

/* Whether the memory has this layout, or is new and gets it. */
static bool layout_is_ours(pw_shared *memory)
{
    int64_t layout = 0;
    return atomic_compare_exchange_strong(&memory->layout, &layout, PW_LAYOUT) ||
           layout == PW_LAYOUT;
}

pw_metrics *pw_metrics_map(int32_t descriptor)
{
    /* Locks inside of an atomic number would not work between processes. */
    if (ATOMIC_LLONG_LOCK_FREE != 2) {
        errno = ENOTSUP;
        return NULL;
    }
    struct stat file;
    if (descriptor >= 0 && fstat(descriptor, &file) != 0)
        return NULL;
    if (descriptor >= 0 && file.st_size != (off_t)sizeof(pw_shared)) {
        errno = EINVAL;
        return NULL;
    }
    int flags = descriptor >= 0 ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS;
    void *memory = mmap(NULL, sizeof(pw_shared), PROT_READ | PROT_WRITE, flags, descriptor, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (!layout_is_ours(memory)) {
        munmap(memory, sizeof(pw_shared));
        errno = EINVAL;
        return NULL;
    }
    pw_metrics *metrics = pw_alloc(sizeof *metrics);
    if (metrics == NULL) {
        munmap(memory, sizeof(pw_shared));
        errno = ENOMEM;
        return NULL;
    }
    metrics->memory = memory;
    atomic_store(&metrics->references, 1);
    return metrics;
}

pw_metrics *pw_metrics_keep(pw_metrics *metrics)
{
    atomic_fetch_add(&metrics->references, 1);
    return metrics;
}

void pw_metrics_free(pw_metrics *metrics)
{
    if (atomic_fetch_sub(&metrics->references, 1) > 1)
        return;
    munmap(metrics->memory, sizeof(pw_shared));
    pw_free(metrics);
}

/* ------------------------------------------------------------------ meters */

pw_meter *pw_meter_join(pw_metrics *metrics)
{
    for (int i = 0; i < PW_METERS; i++) {
        int64_t no_process = 0;
        pw_meter *meter = &metrics->memory->meters[i].meter;
        if (!atomic_compare_exchange_strong(&meter->process, &no_process, PW_CLAIMED))
            continue;
        pw_counter *const gauges[] = {&meter->connections, &meter->idle, &meter->threads,
                                      &meter->busy, &meter->waiting};
        for (size_t k = 0; k < sizeof gauges / sizeof gauges[0]; k++)
            pw_count_set(gauges[k], 0);
        atomic_store(&meter->process, getpid());
        int64_t used = atomic_load(&metrics->memory->used);
        while (used <= i && !atomic_compare_exchange_weak(&metrics->memory->used, &used, i + 1))
            continue;
        return meter;
    }
    return NULL;
}

void pw_meter_leave(pw_meter *meter)
{
    atomic_store(&meter->process, 0);
}

void pw_metrics_retire(pw_metrics *metrics, int32_t process)
{
    pw_process facts;
    bool is_known = pw_process_look(process, &facts);
    bool was_here = false;
    int used = pw_metrics_used(metrics);
    for (int i = 0; i < used; i++) {
        int64_t expected = process;
        pw_meter *meter = pw_metrics_meter(metrics, i);
        was_here |= atomic_compare_exchange_strong(&meter->process, &expected, 0);
    }
    if (was_here && is_known)
        atomic_fetch_add(&metrics->memory->ended_cpu, facts.cpu);
}

void pw_metrics_restart(pw_metrics *metrics, int32_t reason)
{
    if (reason >= 0 && reason < PW_RESTART_REASONS)
        atomic_fetch_add(&metrics->memory->restarts[reason], 1);
}

/* ------------------------------------------------------------------ a request */

void pw_histogram_add(pw_histogram *histogram, int64_t microseconds)
{
    if (microseconds < 0)
        microseconds = 0;
    int bucket = 0; /* most requests are short: the first bounds are enough */
    while (bucket < PW_BOUNDS && microseconds > pw_bounds[bucket])
        bucket++;
    pw_count(&histogram->buckets[bucket], 1);
    pw_count(&histogram->sum, microseconds);
}

pw_method pw_method_of(const char *line, size_t size)
{
    static const struct {
        const char *name;
        size_t size;
    } names[] = {
#define PW_METHOD_LINE(method) {#method " ", sizeof(#method)},
        PW_METHODS(PW_METHOD_LINE)
#undef PW_METHOD_LINE
    };
    for (int i = 0; i < PW_METHOD_OTHER; i++)
        if (size >= names[i].size && memcmp(line, names[i].name, names[i].size) == 0)
            return (pw_method)i;
    return PW_METHOD_OTHER;
}

/* ------------------------------------------------------------------ for the reader */

int pw_metrics_used(const pw_metrics *metrics)
{
    return (int)atomic_load(&metrics->memory->used);
}

pw_meter *pw_metrics_meter(pw_metrics *metrics, int number)
{
    return &metrics->memory->meters[number].meter;
}

int64_t pw_metrics_restarts(const pw_metrics *metrics, int reason)
{
    return pw_count_of(&metrics->memory->restarts[reason]);
}

int64_t pw_metrics_ended_cpu(const pw_metrics *metrics)
{
    return atomic_load(&metrics->memory->ended_cpu);
}

int64_t pw_metrics_show_cpu(pw_metrics *metrics, int64_t sum)
{
    int64_t shown = atomic_load(&metrics->memory->shown_cpu);
    while (shown < sum && !atomic_compare_exchange_weak(&metrics->memory->shown_cpu, &shown, sum))
        continue;
    return shown < sum ? sum : shown;
}
