/* csrc/system.c: what the rest of the core relies on, on every system. */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"

static int pair[2]; /* of a connection: the server's side and the peer's */

static void connect_pair(int family)
{
    if (family == AF_UNIX) {
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        return;
    }
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_storage peer;
    socklen_t size = sizeof name, peer_size = sizeof peer;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(listener >= 0 && bind(listener, (struct sockaddr *)&name, size) == 0);
    REQUIRE(listen(listener, 1) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&name, &size) == 0);
    pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(connect(pair[1], (struct sockaddr *)&name, size) == 0);
    pair[0] = pw_accept_from(listener, &peer, &peer_size);
    REQUIRE(pair[0] >= 0);
    CHECK_INT(peer.ss_family, AF_INET);
    close(listener);
}

static void close_pair(void)
{
    close(pair[0]);
    close(pair[1]);
}

static bool is_own(int fd)
{
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static void new_descriptors_are_nonblocking_and_close_on_exec(void)
{
    int ends[2];
    CHECK_INT(pw_pipe(ends), 0);
    CHECK(is_own(ends[0]) && is_own(ends[1]));
    CHECK_INT(write(ends[1], "x", 1), 1);
    char got;
    CHECK_INT(read(ends[0], &got, 1), 1);
    close(ends[0]);
    close(ends[1]);
    connect_pair(AF_INET);
    CHECK(is_own(pair[0]));
    close_pair();
}

static void a_write_to_a_closed_peer_raises_no_signal(void)
{
    signal(SIGPIPE, SIG_DFL);
    connect_pair(AF_UNIX);
    close(pair[1]);
    struct iovec part = {(void *)(uintptr_t)"x", 1};
    const struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    CHECK_INT(pw_send_bytes(pair[0], "x", 1), -1);
    CHECK_INT(errno, EPIPE);
    CHECK_INT(pw_send_message(pair[0], &message, 0), -1);
    CHECK_INT(errno, EPIPE);
    int file = memfd_create("file", MFD_CLOEXEC);
    REQUIRE(file >= 0 && write(file, "hello", 5) == 5);
    off_t offset = 0;
    CHECK_INT(pw_send_file_part(pair[0], file, &offset, 5), -1);
    CHECK_INT(errno, EPIPE);
    close(file);
    close(pair[0]);
    sigset_t now;
    REQUIRE(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
    CHECK(!sigismember(&now, SIGPIPE) && !sigismember(&now, SIGXFSZ));
    signal(SIGPIPE, SIG_IGN);
}

static void a_signal_that_was_blocked_before_stays_blocked(void)
{
    sigset_t held, now;
    sigemptyset(&held);
    sigaddset(&held, SIGPIPE);
    sigaddset(&held, SIGUSR1);
    REQUIRE(pthread_sigmask(SIG_BLOCK, &held, NULL) == 0);
    raise(SIGPIPE); /* the application's own signal, which must stay pending */
    sigset_t before = pw_write_signals_hold();
    errno = ENOSPC;
    pw_write_signals_release(&before, false);
    CHECK_INT(errno, ENOSPC);
    REQUIRE(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
    CHECK(sigismember(&now, SIGPIPE) && sigismember(&now, SIGUSR1));
    CHECK(!sigismember(&now, SIGXFSZ));
    signal(SIGPIPE, SIG_IGN); /* which also discards the pending one */
    REQUIRE(pthread_sigmask(SIG_UNBLOCK, &held, NULL) == 0);
}

static void a_part_of_a_file_is_sent_from_its_offset(void)
{
    char got[16];
    connect_pair(AF_UNIX);
    int file = memfd_create("file", MFD_CLOEXEC);
    REQUIRE(file >= 0 && write(file, "0123456789", 10) == 10);
    off_t offset = 2;
    CHECK_INT(pw_send_file_part(pair[0], file, &offset, 3), 3);
    CHECK_INT(offset, 5);
    CHECK_INT(pw_send_file_part(pair[0], file, &offset, 100), 5);
    CHECK_INT(offset, 10);
    CHECK_INT(pw_send_file_part(pair[0], file, &offset, 1), 0);
    CHECK_INT(read(pair[1], got, sizeof got), 8);
    CHECK_BYTES(got, 8, "23456789");
    CHECK_INT(lseek(file, 0, SEEK_CUR), 10); /* which has not moved */
    close(file);
    close_pair();
}

static void the_number_of_unacknowledged_bytes_is_known(void)
{
    static char data[8 << 20];
    char got[1000];
    connect_pair(AF_INET);
    CHECK_INT(pw_unsent(pair[0]), 0);
    ssize_t sent = pw_send_bytes(pair[0], data, sizeof data);
    CHECK(sent > 0);
    int unsent = pw_unsent(pair[0]);
    CHECK(unsent > 0 && unsent <= sent);
    CHECK_INT(pw_unsent(-1), 0);
    CHECK(read(pair[1], got, sizeof got) > 0);
    close_pair();
}

static void a_closed_peer_differs_from_a_half_closed_one(void)
{
    const int families[] = {AF_UNIX, AF_INET};
    for (int i = 0; i < 2; i++) {
        ABOUT("family %d", families[i]);
        connect_pair(families[i]);
        CHECK(!pw_peer_is_gone(pair[0]) && !pw_peer_has_left(pair[0]));
        CHECK_INT(write(pair[1], "x", 1), 1);
        CHECK(!pw_peer_is_gone(pair[0]) && !pw_peer_has_left(pair[0])); /* it only sends bytes */
        char said;
        CHECK_INT(read(pair[0], &said, 1), 1);
        shutdown(pair[1], SHUT_WR);
        CHECK(!pw_peer_is_gone(pair[0]));
        CHECK(pw_peer_has_left(pair[0]));
        shutdown(pair[0], SHUT_WR);
        CHECK(pw_peer_is_gone(pair[0]));
        CHECK(pw_peer_has_left(pair[0]));
        close_pair();
    }
    connect_pair(AF_INET);
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(pair[1]);
    CHECK(pw_peer_is_gone(pair[0]));
    close(pair[0]);
}

/* What the peer reads: 0: an end, otherwise the error. */
static int end_of(int family, pw_ending ending)
{
    char got[8];
    connect_pair(family);
    CHECK_INT(write(pair[0], "last", 4), 4);
    int copy = dup(pair[0]); /* as in a forked process */
    REQUIRE(copy >= 0);
    pw_end_connection(pair[0], family, ending);
    CHECK_INT(fcntl(pair[0], F_GETFD), -1);
    fcntl(pair[1], F_SETFL, O_NONBLOCK);
    ssize_t size = read(pair[1], got, sizeof got);
    if (size == 4)
        size = read(pair[1], got, sizeof got);
    int error = size < 0 ? errno : 0;
    close(copy);
    close(pair[1]);
    return error;
}

static void a_connection_ends_for_its_peer_although_another_process_has_it(void)
{
    CHECK_INT(end_of(AF_INET, PW_ENDING_ORDERLY), 0);
    CHECK_INT(end_of(AF_UNIX, PW_ENDING_ORDERLY), 0);
    CHECK_INT(end_of(AF_UNIX, PW_ENDING_RESET), 0);
    CHECK_INT(end_of(AF_INET, PW_ENDING_LEFT), EAGAIN);
    CHECK_INT(end_of(AF_UNIX, PW_ENDING_LEFT), EAGAIN);
#if PW_LINUX
    CHECK_INT(end_of(AF_INET, PW_ENDING_RESET), ECONNRESET);
#endif
}

/* ------------------------------------------------------------------ time */

static int64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void all_clocks_show_the_same_time(void)
{
    for (int i = 0; i < 100; i++) {
        int64_t before = wall_ns(), ns = pw_nanoseconds(), us = pw_microseconds();
        int64_t after = wall_ns(), ms = pw_now();
        CHECK(before <= ns && ns <= after);
        CHECK(before / 1000 <= us && us <= after / 1000);
        CHECK(ms >= before / 1000000 - 20 && ms <= wall_ns() / 1000000);
    }
}

static void compute(int ms)
{
    int64_t until = wall_ns() + (int64_t)ms * 1000000;
    while (wall_ns() < until)
        continue;
}

static void a_thread_knows_its_own_cpu_time(void)
{
    pw_usage before = pw_thread_usage();
    int64_t cpu_before = pw_thread_cpu(pw_thread_id());
    compute(30);
    pw_usage after = pw_thread_usage();
    int64_t wall = after.wall - before.wall, cpu = after.cpu - before.cpu;
    CHECK(wall >= 30000000);
    CHECK(cpu > 0 && cpu <= wall + 10000000);
    CHECK(after.process - before.process >= cpu - 10000000);
    CHECK(after.process - before.process <= wall + 10000000);
#if PW_LINUX
    int64_t used = pw_thread_cpu(pw_thread_id()) - cpu_before;
    CHECK(cpu_before > 0 && used > 0 && used <= pw_thread_usage().wall - before.wall + 10000000);
    CHECK(used >= cpu - 10000000);
    before = pw_thread_usage();
    nanosleep(&(struct timespec){0, 2000000}, NULL);
    CHECK(pw_thread_usage().switches > before.switches);
    CHECK_INT(pw_thread_cpu(0), -1);
    CHECK_INT(pw_thread_cpu(-1), -1);
#else
    CHECK_INT(cpu_before, -1);
#endif
}

static void *end_at_once(void *id)
{
    *(int64_t *)id = pw_thread_id();
    return NULL;
}

static void the_cpu_time_of_an_ended_thread_is_unknown(void)
{
    pthread_t thread;
    int64_t id = 0;
    REQUIRE(pthread_create(&thread, NULL, end_at_once, &id) == 0);
    pthread_join(thread, NULL);
    CHECK(id != pw_thread_id() || id == -1);
    /* pthread_join returns a moment before the system forgets the thread. */
    for (int looks = 0; looks < 5000 && pw_thread_cpu(id) != -1; looks++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    CHECK_INT(pw_thread_cpu(id), -1);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition;

static void *signal_soon(void *unused)
{
    (void)unused;
    nanosleep(&(struct timespec){0, 5000000}, NULL);
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void a_wait_for_a_condition_has_its_time(void)
{
    pw_condition_init(&condition);
    pthread_mutex_lock(&lock);
    /* At every point of a second, also if the wait ends in the next second. */
    for (int i = 0; i < 12; i++) {
        int64_t since = wall_ns();
        bool signalled = pw_condition_wait(&condition, &lock, 90000000);
        CHECK(!signalled);
        CHECK(wall_ns() - since >= 90000000);
        CHECK(wall_ns() - since < 900000000);
    }
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, signal_soon, NULL) == 0);
    int64_t since = wall_ns();
    CHECK(pw_condition_wait(&condition, &lock, 999000000));
    CHECK(wall_ns() - since < 990000000);
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    pthread_cond_destroy(&condition);
}

int main(void)
{
    RUN(new_descriptors_are_nonblocking_and_close_on_exec);
    RUN(a_write_to_a_closed_peer_raises_no_signal);
    RUN(a_signal_that_was_blocked_before_stays_blocked);
    RUN(a_part_of_a_file_is_sent_from_its_offset);
    RUN(the_number_of_unacknowledged_bytes_is_known);
    RUN(a_closed_peer_differs_from_a_half_closed_one);
    RUN(a_connection_ends_for_its_peer_although_another_process_has_it);
    RUN(all_clocks_show_the_same_time);
    RUN(a_thread_knows_its_own_cpu_time);
    RUN(the_cpu_time_of_an_ended_thread_is_unknown);
    RUN(a_wait_for_a_condition_has_its_time);
    return check_end();
}
