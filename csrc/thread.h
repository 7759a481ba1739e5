/* Serving threads. */
#ifndef PW_THREAD_H
#define PW_THREAD_H

#include "state.h"

/* Removes one reference. The last one frees the memory. */
void pw_server_release(pw_server *server);

#endif
