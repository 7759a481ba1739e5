/* The load of each server that shares the listening sockets. */
#ifndef PW_CONN_BALANCE_H
#define PW_CONN_BALANCE_H

#include <stdatomic.h>

#include "types.h"

/* The place of one server. Only that server writes to it, except when its process has ended. */
typedef struct {
    atomic_int_least32_t process; /* its number; 0: the place is free */
    atomic_int_least32_t connections;
    atomic_int_least32_t requests; /* with the application, or waiting for a thread */
} pw_place;

/* NULL: no place is free. */
pw_place *pw_balance_join(pw_balance *balance);
void pw_balance_leave(pw_place *place);
/* Whether another server has so many fewer requests that it should get the new connections. */
bool pw_balance_is_busier(const pw_balance *balance, const pw_place *own);
/* The same, or whether another one has about as many requests and fewer connections. */
bool pw_balance_is_ahead(const pw_balance *balance, const pw_place *own);

#endif
