/*
 * Invariants of a server: every connection is where its state says, and every sum equals its parts.
 * A test calls these functions after each step, and so finds a wrong count, list, flag or timer.
 */
#ifndef PW_AUDIT_H
#define PW_AUDIT_H

struct pw_server;

/* Holds whenever no thread has the lock, also while threads have requests. */
void audit(const struct pw_server *server);
/* Holds also while the loop can only wait, and no other thread is in a call. */
void audit_at_rest(const struct pw_server *server);

#endif
