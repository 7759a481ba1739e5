/*
 * Shares new connections among the servers that accept from the same listening sockets: each server
 * sees how many requests and connections the others have. The kernel alone would wake the one that
 * has waited longest. A server is a process, or one of several loops in a process.
 *
 * Requests come first: most connections are idle, and a server whose threads are all in the
 * application lets a new client wait, however few connections it has.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "conn_balance.h"

#define PW_PLACES 512 /* servers without a place accept without regard to others */
#define PW_CLAIMED -1 /* a server takes this place, and has not stored its process yet */

/* In memory that all servers share. */
struct pw_balance {
    atomic_int_least32_t used; /* no place from here on was ever taken */
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
        int_least32_t no_process = 0;
        pw_place *place = &balance->places[i];
        if (!atomic_compare_exchange_strong(&place->process, &no_process, PW_CLAIMED))
            continue;
        atomic_store(&place->connections, 0);
        atomic_store(&place->requests, 0);
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

/* A difference of a quarter is accepted: clients that connect at the same time wait less. */
static bool is_more(int_least32_t mine, int_least32_t other)
{
    return mine > other + other / 4;
}

/* One request more is no difference: the numbers are up to a tick old. */
static bool has_more_requests(int_least32_t mine, int_least32_t other)
{
    return is_more(mine - 1, other);
}

static int_least32_t requests_of(const pw_place *place)
{
    return atomic_load_explicit(&place->requests, memory_order_relaxed);
}

static int_least32_t connections_of(const pw_place *place)
{
    return atomic_load_explicit(&place->connections, memory_order_relaxed);
}

/* The next place of another server, from *at on. NULL: there is none. */
static const pw_place *next_other(const pw_balance *balance, const pw_place *own, int *at)
{
    int_least32_t used = atomic_load_explicit(&balance->used, memory_order_relaxed);
    while (*at < used) {
        const pw_place *place = &balance->places[(*at)++];
        if (place != own && atomic_load_explicit(&place->process, memory_order_relaxed) > 0)
            return place;
    }
    return NULL;
}

bool pw_balance_is_busier(const pw_balance *balance, const pw_place *own)
{
    int_least32_t requests = requests_of(own);
    int at = requests > 1 ? 0 : PW_PLACES; /* usually there is nothing to look at */
    for (const pw_place *other; (other = next_other(balance, own, &at)) != NULL;)
        if (has_more_requests(requests, requests_of(other)))
            return true;
    return false;
}

bool pw_balance_is_ahead(const pw_balance *balance, const pw_place *own)
{
    int at = 0;
    if (pw_balance_is_busier(balance, own))
        return true;
    for (const pw_place *other; (other = next_other(balance, own, &at)) != NULL;)
        if (!has_more_requests(requests_of(other), requests_of(own)) &&
            is_more(connections_of(own), connections_of(other)))
            return true;
    return false;
}
