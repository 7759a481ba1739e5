/* A complete request on its way to Python. */
#ifndef PW_REQUEST_H
#define PW_REQUEST_H

#include "state.h"

/* Hands a complete request over: from here on the connection is the thread's. */
int64_t pw_thread_take(pw_thread *thread, pw_conn *conn);

#endif
