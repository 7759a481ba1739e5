/* Serving threads. */
#ifndef PW_THREAD_H
#define PW_THREAD_H

#include "state.h"

/* One reference less. */
void pw_server_release(pw_server *server);

#endif
