/* How many connections the servers have that share listening sockets. */
#ifndef PW_CONN_BALANCE_H
#define PW_CONN_BALANCE_H

#include <stdatomic.h>

#include "types.h"

/* One server; written by itself, but for the end of process. */
typedef struct {
    atomic_int_least32_t process; /* its number; 0: the place is free */
    atomic_int_least32_t connections;
} pw_place;

/* NULL: there is none free. */
pw_place *pw_balance_join(pw_balance *balance);
void pw_balance_leave(pw_place *place);
/* Whether another server has so few connections that new ones should be its. */
bool pw_balance_is_ahead(const pw_balance *balance, const pw_place *own);

#endif
