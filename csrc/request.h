/* Handing a complete request to Python. */
#ifndef PW_REQUEST_H
#define PW_REQUEST_H

#include "state.h"

/* Hands a complete request to the thread, which owns the connection from here on. Returns the
 * number for pw_next. */
int64_t pw_thread_take(pw_thread *thread, pw_conn *conn);

#endif
