/* The questions that the core answers itself. */
#ifndef PW_HEALTH_H
#define PW_HEALTH_H

#include "conn_close.h"

/* A question for the core itself: it is answered though all threads be busy. */
bool pw_conn_is_health(const pw_server *server, const pw_conn *conn);
pw_step pw_conn_answer_health(pw_server *server, pw_conn *conn);

#endif
