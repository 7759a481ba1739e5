/* Functions whose implementation differs between systems. */
#ifndef PW_SYSTEM_H
#define PW_SYSTEM_H

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "types.h"

/* PW_PORTABLE leaves out what only Linux has, so that Linux can test the code for other systems. */
#if defined(__linux__) && !defined(PW_PORTABLE)
#define PW_LINUX 1
#else
#define PW_LINUX 0
#endif

/* The events by which poll(2) reports that both sides of a connection are closed. */
#ifndef __APPLE__
#define PW_POLL_GONE (POLLHUP | POLLERR | POLLNVAL)
#else /* POLLHUP can mean that one side is closed */
#define PW_POLL_GONE (POLLERR | POLLNVAL)
#endif

/* Makes a non-blocking pipe whose ends are closed at execve(2). Returns 0 or an errno. */
int pw_pipe(int ends[2]);
/* accept(2). The connection does not block and is closed at execve(2). */
int pw_accept_from(int listener, struct sockaddr_storage *peer, socklen_t *size);
/* False: with errno set. */
bool pw_set_blocking(int fd, bool blocks);
/* dup2(2), whose result is closed at execve(2). False: with errno set. */
bool pw_duplicate_to(int fd, int to);
/* Turns SIGPIPE off for this socket, on systems where that is a property of the socket. */
void pw_no_pipe_signal(int fd);
/* sendmsg(2) and send(2) without SIGPIPE, because the application
 * may have restored its default action. */
ssize_t pw_send_message(int fd, const struct msghdr *message, int flags);
ssize_t pw_send_bytes(int fd, const char *data, size_t size);
/* recvmsg(2) for one descriptor at most, which is closed at execve(2). */
ssize_t pw_receive_message(int fd, struct msghdr *message, int flags);
/* Sends from a file without SIGPIPE. Moves *offset, but not the position of the file. */
ssize_t pw_send_file_part(int fd, int file, off_t *offset, size_t size);
/* The bytes that this system has taken and the peer has not
 * acknowledged. 0: the system does not say. */
int pw_unsent(int fd);
/* How a client's connection ends. */
typedef enum {
    PW_ENDING_ORDERLY, /* the client gets all bytes that were sent, then the end */
    PW_ENDING_RESET,   /* a reset: the client must not take the bytes it got for the whole */
    PW_ENDING_LEFT,    /* another process continues with the connection */
} pw_ending;

/*
 * Ends and closes a connection of this address family. All code closes connections by this
 * function. A process that the application has forked may have the descriptor too, and then
 * close(2) alone sends nothing to the client. A unix socket has no reset: there PW_ENDING_RESET is
 * an orderly end.
 */
void pw_end_connection(int fd, int family, pw_ending ending);
/* The same for a connection that another thread may be using: the descriptor stays open. */
void pw_shut_connection(int fd, int family, pw_ending ending);
/* Whether the peer has reset the connection, or both sides are shut. */
bool pw_peer_is_gone(int fd);
/* Whether the peer has closed its side or has disconnected. Unread data may hide that. */
bool pw_peer_has_left(int fd);
/* The time that a thread has used. */
typedef struct {
    int64_t wall;     /* ns, of the monotonic clock */
    int64_t cpu;      /* ns of CPU time; -1: not measured */
    int64_t process;  /* ns of CPU time of all threads of the process */
    int64_t switches; /* voluntary switches; any number if the system does not count them */
} pw_usage;

/* The usage of the calling thread. */
pw_usage pw_thread_usage(void);
/* The id of the calling thread for pw_thread_cpu. -1: the system has none. */
int64_t pw_thread_id(void);
/* The CPU time of a thread in ns. -1: the system does not say, or the thread has ended. */
int64_t pw_thread_cpu(int64_t thread);
/* Only pw_condition_wait may wait for this condition. */
void pw_condition_init(pthread_cond_t *condition);
/* False: it was not signalled in this time. */
bool pw_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t nanoseconds);

/*
 * For calls around a write, which may raise SIGPIPE or SIGXFSZ (a file has reached RLIMIT_FSIZE).
 * Python ignores both signals, but an application may have restored their defaults, and then they
 * end the process. They are blocked during the write only, because programs that the application
 * starts would inherit the mask.
 */
sigset_t pw_write_signals_hold(void);
/* `before` is the result of pw_write_signals_hold. Keeps errno. whole: the call has written
 * everything. If it has not, it may have raised a signal even without an error. */
void pw_write_signals_release(const sigset_t *before, bool whole);

#endif
