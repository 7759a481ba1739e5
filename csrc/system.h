/* What systems do differently. */
#ifndef PW_SYSTEM_H
#define PW_SYSTEM_H

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "types.h"

/* PW_PORTABLE leaves out what only Linux has, so that the other forms can be tested there. */
#if defined(__linux__) && !defined(PW_PORTABLE)
#define PW_LINUX 1
#else
#define PW_LINUX 0
#endif

/* What poll(2) says of a peer that is gone altogether. */
#ifndef __APPLE__
#define PW_POLL_GONE (POLLHUP | POLLERR | POLLNVAL)
#else /* where POLLHUP can be half a close */
#define PW_POLL_GONE (POLLERR | POLLNVAL)
#endif

/* A pipe that neither end of waits, closed at execve(2). 0, or an errno. */
int pw_pipe(int ends[2]);
/* accept(2): the connection does not wait either, and is closed at execve(2). */
int pw_accept_from(int listener, struct sockaddr_storage *peer, socklen_t *size);
/* Has writing to a socket raise no SIGPIPE, where that is a property of the socket. */
void pw_no_pipe_signal(int fd);
/* sendmsg(2) and send(2) without SIGPIPE: an application may have given that its default back. */
ssize_t pw_send_message(int fd, const struct msghdr *message, int flags);
ssize_t pw_send_bytes(int fd, const char *data, size_t size);
/* recvmsg(2); descriptors that come are closed at execve(2). Takes one at most. */
ssize_t pw_receive_message(int fd, struct msghdr *message, int flags);
/* Sends from a file, which is not moved; *offset is. Without SIGPIPE, as above. */
ssize_t pw_send_file_part(int fd, int file, off_t *offset, size_t size);
/* How many bytes the system has taken and the peer has not yet; 0 where it does not say. */
int pw_unsent(int fd);
/* How a client's connection ends. */
typedef enum {
    PW_ENDING_ORDERLY, /* what was sent arrives, and then the end of it */
    PW_ENDING_RESET,   /* the client is not to take what it has got for all there is */
    PW_ENDING_LEFT,    /* another process goes on with it */
} pw_ending;

/* Ends and closes a connection of this family; the only way in which that is done. A process that the
 * application has forked may have the descriptor too, so to close it tells the client nothing. Unix
 * sockets know no reset: there it is an orderly end. */
void pw_end_connection(int fd, int family, pw_ending ending);
/* Whether the peer is gone altogether: it has reset the connection, or both sides are shut. */
bool pw_peer_is_gone(int fd);
/* Whether the peer has closed its side, or is gone; may not see it behind data that nobody read. */
bool pw_peer_has_left(int fd);
/* What a thread has used. */
typedef struct {
    int64_t wall;     /* ns, of the monotonic clock */
    int64_t cpu;      /* ns of CPU time; -1: not asked for */
    int64_t process;  /* the same of all threads of the process */
    int64_t switches; /* voluntary ones; any number where that is not known */
} pw_usage;

/* Of the calling thread. */
pw_usage pw_thread_usage(void);
/* The calling thread, for pw_thread_cpu; -1 where the system does not say. */
int64_t pw_thread_id(void);
/* The CPU time of a thread in ns; -1 where the system does not say, or the thread has ended. */
int64_t pw_thread_cpu(int64_t thread);
/* To be waited for by pw_condition_wait alone. */
void pw_condition_init(pthread_cond_t *condition);
/* False: nobody has signalled it in this time, less than a second. */
bool pw_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, long nanoseconds);

/*
 * Around a call that writes. It may raise SIGPIPE or SIGXFSZ (a file that has reached RLIMIT_FSIZE).
 * Python ignores both, and they would end the process where an application has given them their
 * defaults back. They are not left blocked: programs that the application starts would have them so.
 */
sigset_t pw_write_signals_hold(void);
/* With what hold has returned; errno is kept. whole: the call has written all that it was to write;
 * with less of it, too, a signal may have been raised. */
void pw_write_signals_release(const sigset_t *before, bool whole);

#endif
