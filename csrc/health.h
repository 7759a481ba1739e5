/* Health checks (--health, --health-live), which the core answers. */
#ifndef PW_HEALTH_H
#define PW_HEALTH_H

#include "conn_close.h"

/* Whether the request is a health check. The core answers it even if all threads are busy. */
bool pw_conn_is_health(const pw_server *server, const pw_conn *conn);
pw_step pw_conn_answer_health(pw_server *server, pw_conn *conn);

#endif
