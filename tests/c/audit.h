/*
 * What always holds in a server: every connection is where its state says, and every sum is the sum
 * of its parts. A test that calls these after each step incidents a count, a list, a flag or a timer
 * that one of the steps has left wrong.
 */
#ifndef PW_AUDIT_H
#define PW_AUDIT_H

struct pw_server;

/* Holds whenever the lock is free, also while other threads are at their requests. */
void audit(const struct pw_server *server);
/* Holds too where the loop has nothing to do but to wait, and no other thread is in a call. */
void audit_at_rest(const struct pw_server *server);

#endif
