/* Cutting off responses that stream, when the server stops and does not wait for them. */
#ifndef PW_CUT_H
#define PW_CUT_H

#include "state.h"

/* Called by the watcher, with the lock, about every PW_LOOK_MS: see pw_server_cut_streams. */
void pw_cut_look(pw_server *server);
/* With the lock. Whether the response of the thread's request has been cut off, and the thread had
 * enough time to come back. */
bool pw_cut_is_over(const pw_server *server, const pw_thread *thread);

#endif
