/* Functions whose implementation differs between systems; each
 * is built in the form for this one. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "system.h"

#ifdef __linux__
#include <sys/prctl.h>
#endif
#if PW_LINUX
#include <sys/sendfile.h>
#include <sys/syscall.h>
#endif
#ifdef __FreeBSD__
#include <sys/filio.h>
#endif

#define PW_COPY_PART 16384 /* bytes read from a file at a time, without sendfile */

#if !PW_LINUX
/* False with errno set. */
static bool make_own(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}
#endif

bool pw_set_blocking(int fd, bool blocks)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, blocks ? flags & ~O_NONBLOCK : flags | O_NONBLOCK) == 0;
}

bool pw_duplicate_to(int fd, int to)
{
    int made;
    do
#if PW_LINUX
        made = dup3(fd, to, O_CLOEXEC);
#else
        made = dup2(fd, to);
#endif
    while (made < 0 && (errno == EINTR || errno == EBUSY)); /* EBUSY: another thread opens a file */
#if !PW_LINUX
    if (made >= 0 && fcntl(made, F_SETFD, FD_CLOEXEC) != 0)
        return false;
#endif
    return made >= 0;
}

void pw_no_pipe_signal(int fd)
{
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &(int){1}, sizeof(int));
#else
    (void)fd;
#endif
}

int pw_pipe(int ends[2])
{
#if PW_LINUX
    return pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0 ? 0 : errno;
#else
    if (pipe(ends) != 0)
        return errno;
    if (make_own(ends[0]) && make_own(ends[1]))
        return 0;
    int error = errno;
    close(ends[0]);
    close(ends[1]);
    ends[0] = ends[1] = -1;
    return error;
#endif
}

int pw_accept_from(int listener, struct sockaddr_storage *peer, socklen_t *size)
{
#if PW_LINUX
    return accept4(listener, (struct sockaddr *)peer, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
    int fd = accept(listener, (struct sockaddr *)peer, size);
    if (fd < 0)
        return fd;
    pw_no_pipe_signal(fd);
    if (make_own(fd))
        return fd;
    pw_end_connection(fd, peer->ss_family, PW_ENDING_ORDERLY);
    errno = ECONNABORTED;
    return -1;
#endif
}

ssize_t pw_send_bytes(int fd, const char *data, size_t size)
{
#if defined(MSG_NOSIGNAL) && !defined(PW_PORTABLE)
    return send(fd, data, size, MSG_NOSIGNAL);
#else
    struct iovec part = {(void *)(uintptr_t)data, size};
    const struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    return pw_send_message(fd, &message, 0);
#endif
}

ssize_t pw_send_message(int fd, const struct msghdr *message, int flags)
{
#if defined(MSG_NOSIGNAL) && !defined(PW_PORTABLE)
    return sendmsg(fd, message, flags | MSG_NOSIGNAL);
#elif defined(SO_NOSIGPIPE)
    return sendmsg(fd, message, flags);
#else
    sigset_t before = pw_write_signals_hold();
    ssize_t done = sendmsg(fd, message, flags);
    pw_write_signals_release(&before, done >= 0);
    return done;
#endif
}

ssize_t pw_receive_message(int fd, struct msghdr *message, int flags)
{
#if defined(MSG_CMSG_CLOEXEC) && !defined(PW_PORTABLE)
    return recvmsg(fd, message, flags | MSG_CMSG_CLOEXEC);
#else
    ssize_t got = recvmsg(fd, message, flags);
    struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(message) : NULL;
    int came;
    if (header != NULL && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof came)) {
        memcpy(&came, CMSG_DATA(header), sizeof came);
        fcntl(came, F_SETFD, FD_CLOEXEC);
    }
    return got;
#endif
}

ssize_t pw_send_file_part(int fd, int file, off_t *offset, size_t size)
{
#if PW_LINUX
    sigset_t before = pw_write_signals_hold(); /* sendfile has no MSG_NOSIGNAL */
    ssize_t done = sendfile(fd, file, offset, size);
    pw_write_signals_release(&before, done == (ssize_t)size);
    return done;
#else
    /* Other systems have a sendfile too, each with another interface. */
    char part[PW_COPY_PART];
    ssize_t all = 0;
    while ((size_t)all < size) {
        size_t want = size - (size_t)all < sizeof part ? size - (size_t)all : sizeof part;
        ssize_t got = pread(file, part, want, *offset);
        if (got <= 0)
            return all > 0 ? all : got;
        ssize_t done = pw_send_bytes(fd, part, (size_t)got);
        if (done < 0)
            return all > 0 ? all : done;
        all += done;
        *offset += done;
        if (done < got)
            break;
    }
    return all;
#endif
}

int pw_unsent(int fd)
{
    int size = 0;
#if defined(SO_NWRITE) /* macOS */
    socklen_t room = sizeof size;
    if (getsockopt(fd, SOL_SOCKET, SO_NWRITE, &size, &room) != 0)
        return 0;
#elif defined(FIONWRITE) /* FreeBSD */
    if (ioctl(fd, FIONWRITE, &size) != 0)
        return 0;
#elif defined(TIOCOUTQ)
    if (ioctl(fd, TIOCOUTQ, &size) != 0)
        return 0;
#endif
    return size;
}

/* Drops all bytes that the peer has not acknowledged. */
static void reset_connection(int fd)
{
#if PW_LINUX
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    if (connect(fd, &nowhere, sizeof nowhere) == 0)
        return;
#endif
    /* On other systems the reset is sent when the last process closes the connection. */
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

void pw_shut_connection(int fd, int family, pw_ending ending)
{
    switch (ending) {
    case PW_ENDING_RESET:
        if (family != AF_UNIX) {
            reset_connection(fd);
            break;
        }
        shutdown(fd, SHUT_RDWR);
        break;
    case PW_ENDING_ORDERLY:
        shutdown(fd, SHUT_RDWR);
        break;
    case PW_ENDING_LEFT:
        break;
    }
}

void pw_end_connection(int fd, int family, pw_ending ending)
{
    pw_shut_connection(fd, family, ending);
    close(fd);
}

bool pw_peer_is_gone(int fd)
{
    struct pollfd asked = {.fd = fd, .events = 0, .revents = 0};
    return poll(&asked, 1, 0) > 0 && (asked.revents & PW_POLL_GONE) != 0;
}

bool pw_peer_has_left(int fd)
{
#if defined(POLLRDHUP) && !defined(PW_PORTABLE)
    struct pollfd asked = {.fd = fd, .events = POLLRDHUP, .revents = 0};
    return poll(&asked, 1, 0) > 0;
#else
    struct pollfd asked = {.fd = fd, .events = POLLIN, .revents = 0};
    char unused;
    if (poll(&asked, 1, 0) <= 0)
        return false;
    return (asked.revents & (POLLHUP | POLLERR)) != 0 ||
           recv(fd, &unused, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
#endif
}

pw_usage pw_thread_usage(void)
{
#ifdef RUSAGE_THREAD
    struct rusage used;
    getrusage(RUSAGE_THREAD, &used);
    int64_t cpu = ((int64_t)used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000 +
                  ((int64_t)used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000;
    return (pw_usage){.wall = pw_nanoseconds(),
                      .cpu = cpu,
                      .process = pw_clock_ns(CLOCK_PROCESS_CPUTIME_ID),
                      .switches = used.ru_nvcsw};
#else
    int64_t wall = pw_nanoseconds();
    return (pw_usage){.wall = wall,
                      .cpu = pw_clock_ns(CLOCK_THREAD_CPUTIME_ID),
                      .process = pw_clock_ns(CLOCK_PROCESS_CPUTIME_ID),
                      .switches = wall};
#endif
}

int64_t pw_thread_id(void)
{
#if PW_LINUX
    return syscall(SYS_gettid);
#else
    return -1;
#endif
}

int64_t pw_thread_cpu(int64_t thread)
{
#if PW_LINUX
    /* As pthread_getcpuclockid makes it. That function must not be
     * called for a thread that has ended. */
    clockid_t clock = (clockid_t)(~(uint32_t)thread << 3 | 6);
    struct timespec used;
    if (thread > 0 && clock_gettime(clock, &used) == 0)
        return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
#endif
    (void)thread;
    return -1;
}

void pw_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
#ifndef __APPLE__ /* macOS has only the wall clock here, and waits in another way */
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

bool pw_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t nanoseconds)
{
    time_t seconds = (time_t)(nanoseconds / 1000000000);
    long rest = (long)(nanoseconds % 1000000000);
#ifdef __APPLE__
    const struct timespec wait = {seconds, rest};
    return pthread_cond_timedwait_relative_np(condition, lock, &wait) != ETIMEDOUT;
#else
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    until.tv_nsec += rest;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    return pthread_cond_timedwait(condition, lock, &until) != ETIMEDOUT;
#endif
}

/* ------------------------------------------------------------------ a process */

int32_t pw_gets_orphans(void)
{
    int subreaper = 0;
#ifdef __linux__
    if (prctl(PR_GET_CHILD_SUBREAPER, (unsigned long)&subreaper, 0, 0, 0) != 0)
        subreaper = 0;
#endif
    return subreaper != 0 || getpid() == 1;
}

int32_t pw_die_with_parent(int32_t signal)
{
#ifdef __linux__
    return prctl(PR_SET_PDEATHSIG, (unsigned long)signal, 0, 0, 0) == 0 ? 0 : errno;
#else
    (void)signal;
    return ENOSYS;
#endif
}

/* The signals that a write may raise in the thread that makes the call. */
static const int write_signals[] = {SIGPIPE, SIGXFSZ};
enum { PW_WRITE_SIGNALS = sizeof write_signals / sizeof write_signals[0] };

sigset_t pw_write_signals_hold(void)
{
    sigset_t set, before;
    sigemptyset(&set);
    for (int i = 0; i < PW_WRITE_SIGNALS; i++)
        sigaddset(&set, write_signals[i]);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    return before;
}

static void signal_discard(int number)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
#if PW_LINUX
    const struct timespec none = {0, 0};
    sigtimedwait(&set, NULL, &none);
#else /* not every system has sigtimedwait */
    sigset_t pending;
    int unused;
    if (sigpending(&pending) == 0 && sigismember(&pending, number) == 1)
        sigwait(&set, &unused);
#endif
}

void pw_write_signals_release(const sigset_t *before, bool whole)
{
    int error = errno;
    for (int i = 0; i < PW_WRITE_SIGNALS && !whole; i++)
        if (!sigismember(before, write_signals[i]))
            signal_discard(write_signals[i]);
    pthread_sigmask(SIG_SETMASK, before, NULL);
    errno = error;
}
