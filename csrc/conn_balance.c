/* How many connections each of the servers has that share the listening sockets, so that they
 * share the connections too: the system itself wakes whichever has waited for the longest. Each is
 * in a process of its own, or one of several loops in a process. */
#include <sys/mman.h>
#include <unistd.h>

#include "conn_balance.h"

#define PW_PLACES 512 /* servers beyond that take what comes */
#define PW_CLAIMED -1 /* taken by a process that is not there yet */

/* In memory that all of them share. */
struct pw_balance {
    atomic_int_least32_t used; /* none of the places from here on was ever taken */
    pw_place places[PW_PLACES];
};

pw_balance *pw_balance_new(void)
{
    void *memory =
        mmap(NULL, sizeof(pw_balance), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void pw_balance_free(pw_balance *balance)
{
    munmap(balance, sizeof *balance);
}

void pw_balance_forget(pw_balance *balance, int32_t process)
{
    for (int i = 0; i < PW_PLACES; i++) {
        int_least32_t expected = process;
        atomic_compare_exchange_strong(&balance->places[i].process, &expected, 0);
    }
}

pw_place *pw_balance_join(pw_balance *balance)
{
    for (int i = 0; i < PW_PLACES; i++) {
        int_least32_t nobody = 0;
        pw_place *place = &balance->places[i];
        if (!atomic_compare_exchange_strong(&place->process, &nobody, PW_CLAIMED))
            continue;
        atomic_store(&place->connections, 0);
        atomic_store(&place->process, getpid());
        int_least32_t used = atomic_load(&balance->used);
        while (used <= i && !atomic_compare_exchange_weak(&balance->used, &used, i + 1))
            continue;
        return place;
    }
    return NULL;
}

void pw_balance_leave(pw_place *place)
{
    atomic_store(&place->process, 0);
}

bool pw_balance_is_ahead(const pw_balance *balance, const pw_place *own)
{
    int_least32_t least = INT32_MAX;
    int_least32_t used = atomic_load_explicit(&balance->used, memory_order_relaxed);
    for (int i = 0; i < used; i++) {
        const pw_place *place = &balance->places[i];
        if (place == own || atomic_load_explicit(&place->process, memory_order_relaxed) <= 0)
            continue;
        int_least32_t found = atomic_load_explicit(&place->connections, memory_order_relaxed);
        least = found < least ? found : least;
    }
    /* A quarter more is no matter: it spares many, who come at once, some of the waiting. */
    int_least32_t mine = atomic_load_explicit(&own->connections, memory_order_relaxed);
    return least != INT32_MAX && mine > least + least / 4;
}
