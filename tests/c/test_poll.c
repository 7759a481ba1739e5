/* csrc/poll*.c: the events that a poller has to report, with each poller of this build. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "alloc.h"
#include "check.h"
#include "poller.h"
#include "system.h"

#define TIMEOUT_MS 10000

static const char *name; /* the current poller */
static pw_poll poller;

/* A connection. Its address is its tag. */
typedef struct {
    int ours, theirs;
    int reported; /* events since the last look */
} test_pair;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void pair_make(test_pair *pair)
{
    int fds[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    *pair = (test_pair){.ours = fds[0], .theirs = fds[1]};
}

static void pair_add(test_pair *pair)
{
    REQUIRE(pw_poll_add(&poller, pair->ours, pair, PW_POLL_EDGES) == 0);
}

static void pair_want(test_pair *pair, int what)
{
    REQUIRE(pw_poll_want(&poller, pair->ours, pair, what) == 0);
}

/* Adds a connection that waits to read. */
static void pair_open(test_pair *pair)
{
    pair_make(pair);
    pair_add(pair);
    pair_want(pair, PW_READABLE);
}

static void pair_close(test_pair *pair)
{
    pw_poll_remove(&poller, pair->ours);
    close(pair->ours);
    if (pair->theirs >= 0)
        close(pair->theirs);
}

static void pair_send(test_pair *pair)
{
    REQUIRE(send(pair->theirs, "x", 1, MSG_NOSIGNAL) == 1);
}

/* Reads until the socket is empty, as the core does. */
static void pair_read(test_pair *pair)
{
    char data[4096];
    while (recv(pair->ours, data, sizeof data, 0) > 0)
        continue;
    CHECK_INT(errno, EAGAIN);
}

static void wait_once(int timeout)
{
    pw_event events[PW_EVENTS_MOST];
    int count = poller.poller->wait(&poller, events, timeout);
    REQUIRE(count >= 0 && count <= PW_EVENTS_MOST);
    for (int i = 0; i < count; i++)
        ((test_pair *)events[i].tag)->reported |= events[i].what;
}

/* Whether this event is reported soon. */
static bool is_reported(test_pair *pair, int what)
{
    int64_t end = now_ms() + TIMEOUT_MS;
    while ((pair->reported & what) != what && now_ms() < end)
        wait_once(100);
    bool reported = (pair->reported & what) == what;
    pair->reported = 0;
    return reported;
}

/* Whether no such event is reported after those that were pending. */
static bool is_quiet(test_pair *pair, int what)
{
    pair->reported = 0;
    for (int i = 0; i < 3; i++)
        wait_once(0);
    return (pair->reported & what) == 0;
}

/* ------------------------------------------------------------------ one thread */

static void an_edge_is_reported_once(void)
{
    test_pair pair;
    pair_open(&pair);
    CHECK(is_quiet(&pair, PW_READABLE | PW_GONE_AWAY));
    pair_send(&pair);
    CHECK(is_reported(&pair, PW_READABLE));
    CHECK(is_quiet(&pair, PW_READABLE | PW_GONE_AWAY)); /* although the bytes were not read */
    pair_close(&pair);
}

static void the_next_edge_is_reported_after_a_complete_read(void)
{
    test_pair pair;
    pair_open(&pair);
    for (int i = 0; i < 5; i++) {
        pair_send(&pair);
        CHECK(is_reported(&pair, PW_READABLE));
        pair_read(&pair);
        pair_want(&pair, PW_READABLE);
        CHECK(is_quiet(&pair, PW_READABLE));
    }
    pair_close(&pair);
}

static void earlier_bytes_are_reported(void)
{
    test_pair pair;
    pair_make(&pair);
    pair_send(&pair);
    pair_add(&pair);
    pair_want(&pair, PW_READABLE);
    CHECK(is_reported(&pair, PW_READABLE));
    pair_close(&pair);
}

static void bytes_between_a_read_and_a_wait_are_reported(void)
{
    test_pair pair;
    pair_open(&pair);
    pair_send(&pair);
    CHECK(is_reported(&pair, PW_READABLE));
    pair_read(&pair);
    pair_send(&pair);
    pair_want(&pair, PW_READABLE);
    CHECK(is_reported(&pair, PW_READABLE));
    pair_close(&pair);
}

static void fill(test_pair *pair)
{
    static const char data[65536];
    while (send(pair->ours, data, sizeof data, MSG_NOSIGNAL) > 0)
        continue;
    REQUIRE(errno == EAGAIN);
}

static void drain(test_pair *pair)
{
    char data[65536];
    while (recv(pair->theirs, data, sizeof data, 0) > 0)
        continue;
}

static void room_to_write_is_reported_on_request(void)
{
    test_pair pair;
    pair_open(&pair);
    for (int i = 0; i < 3; i++) {
        fill(&pair);
        pair_want(&pair, PW_READABLE | PW_WRITABLE);
        is_quiet(&pair, 0); /* takes earlier edges */
        CHECK(is_quiet(&pair, PW_WRITABLE));
        drain(&pair);
        CHECK(is_reported(&pair, PW_WRITABLE));
        CHECK(is_quiet(&pair, PW_WRITABLE));
    }
    pair_close(&pair);
}

static void both_directions_are_reported(void)
{
    test_pair pair;
    pair_open(&pair);
    fill(&pair);
    pair_want(&pair, PW_READABLE | PW_WRITABLE);
    is_quiet(&pair, 0);
    pair_send(&pair);
    CHECK(is_reported(&pair, PW_READABLE));
    drain(&pair);
    CHECK(is_reported(&pair, PW_WRITABLE));
    pair_close(&pair);
}

static void half_a_close_is_an_end_to_read(void)
{
    test_pair pair;
    char unused;
    pair_open(&pair);
    REQUIRE(shutdown(pair.theirs, SHUT_WR) == 0);
    CHECK(is_reported(&pair, PW_READABLE));
    CHECK_INT(recv(pair.ours, &unused, 1, 0), 0);
    CHECK(is_quiet(&pair, PW_GONE_AWAY));
    CHECK_INT(send(pair.ours, "x", 1, MSG_NOSIGNAL), 1);
    fill(&pair);
    pair_want(&pair, PW_WRITABLE);
    is_quiet(&pair, 0);
    drain(&pair);
    CHECK(is_reported(&pair, PW_WRITABLE));
    pair_close(&pair);
}

static void half_a_close_after_data_is_reported_too(void)
{
    test_pair pair;
    pair_open(&pair);
    pair_send(&pair);
    CHECK(is_reported(&pair, PW_READABLE));
    pair_read(&pair);
    pair_want(&pair, PW_READABLE);
    REQUIRE(shutdown(pair.theirs, SHUT_WR) == 0);
    CHECK(is_reported(&pair, PW_READABLE));
    pair_close(&pair);
}

/* Connects over TCP, which has resets. The connection is not accepted yet. */
static void pair_connect(test_pair *pair, int *listener)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    REQUIRE(bind(*listener, (struct sockaddr *)&address, size) == 0);
    REQUIRE(listen(*listener, 8) == 0);
    REQUIRE(getsockname(*listener, (struct sockaddr *)&address, &size) == 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(connect(client, (struct sockaddr *)&address, size) == 0);
    *pair = (test_pair){.ours = -1, .theirs = client};
}

static void pair_accept(test_pair *pair, int listener)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    pair->ours = pw_accept_from(listener, &peer, &size);
    REQUIRE(pair->ours >= 0);
    CHECK((fcntl(pair->ours, F_GETFL) & O_NONBLOCK) != 0);
    CHECK_INT(fcntl(pair->ours, F_GETFD), FD_CLOEXEC);
}

static void a_disconnect_is_reported_once_without_a_request(void)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    test_pair pair;
    int listener;
    pair_connect(&pair, &listener);
    pair_accept(&pair, listener);
    close(listener);
    pair_add(&pair);
    pair_want(&pair, PW_READABLE);
    pair_send(&pair);
    CHECK(is_reported(&pair, PW_READABLE));
    pair_want(&pair, 0);
    REQUIRE(setsockopt(pair.theirs, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    close(pair.theirs);
    pair.theirs = -1;
    CHECK(is_reported(&pair, PW_GONE_AWAY));
    CHECK(is_quiet(&pair, PW_READABLE | PW_GONE_AWAY));
    pair_close(&pair);
}

static void a_removed_descriptor_is_not_reported(void)
{
    test_pair one, other;
    pair_open(&one);
    pair_open(&other);
    pw_poll_remove(&poller, one.ours);
    pair_send(&one);
    pair_send(&other);
    CHECK(is_reported(&other, PW_READABLE));
    CHECK(is_quiet(&one, ~0));
    pair_add(&one); /* and can be added again */
    pair_want(&one, PW_READABLE);
    CHECK(is_reported(&one, PW_READABLE));
    pair_close(&one);
    pair_close(&other);
}

static void a_descriptor_that_waits_to_write_can_be_removed(void)
{
    test_pair pair;
    pair_open(&pair);
    fill(&pair);
    pair_want(&pair, PW_READABLE | PW_WRITABLE);
    is_quiet(&pair, 0);
    pw_poll_remove(&poller, pair.ours);
    drain(&pair);
    pair_send(&pair);
    CHECK(is_quiet(&pair, ~0));
    pair_close(&pair);
}

static void a_descriptor_that_is_used_again_has_the_new_tag(void)
{
    test_pair old, new;
    pair_open(&old);
    pair_send(&old);
    int number = old.ours;
    pair_close(&old);
    pair_make(&new);
    if (new.ours != number) {
        REQUIRE(dup2(new.ours, number) == number);
        close(new.ours);
        new.ours = number;
    }
    old.reported = 0;
    pair_add(&new);
    pair_want(&new, PW_READABLE);
    pair_send(&new);
    CHECK(is_reported(&new, PW_READABLE));
    CHECK_INT(old.reported, 0);
    pair_close(&new);
}

static void a_level_is_reported_as_long_as_it_lasts(void)
{
    int ends[2];
    char data[8];
    test_pair pair = {.ours = -1};
    REQUIRE(pw_pipe(ends) == 0);
    REQUIRE(pw_poll_add(&poller, ends[0], &pair, PW_POLL_LEVEL) == 0);
    CHECK(is_quiet(&pair, ~0));
    REQUIRE(write(ends[1], "xx", 2) == 2);
    for (int i = 0; i < 3; i++)
        CHECK(is_reported(&pair, PW_READABLE));
    REQUIRE(read(ends[0], data, sizeof data) == 2);
    CHECK(is_quiet(&pair, ~0));
    pw_poll_remove(&poller, ends[0]);
    close(ends[0]);
    close(ends[1]);
}

static void a_level_is_reported_before_later_events(void)
{
    enum { COUNT = 20 };
    test_pair pairs[COUNT], level = {.reported = 0};
    int ends[2];
    for (int i = 0; i < COUNT; i++) {
        pair_open(&pairs[i]);
        if (i == COUNT / 2) {
            REQUIRE(pw_pipe(ends) == 0);
            REQUIRE(pw_poll_add(&poller, ends[0], &level, PW_POLL_LEVEL) == 0);
        }
    }
    is_quiet(&level, 0);
    REQUIRE(write(ends[1], "x", 1) == 1);
    for (int i = 0; i < COUNT; i++)
        pair_send(&pairs[i]);
    pw_event events[PW_EVENTS_MOST];
    CHECK_INT(poller.poller->wait(&poller, events, TIMEOUT_MS), COUNT + 1);
    CHECK(events[0].tag == &level);
    pw_poll_remove(&poller, ends[0]);
    close(ends[0]);
    close(ends[1]);
    for (int i = 0; i < COUNT; i++)
        pair_close(&pairs[i]);
}

static void a_listener_is_reported_as_long_as_a_client_waits(void)
{
    test_pair pair, listening = {.reported = 0};
    int listener;
    pair_connect(&pair, &listener);
    for (int i = 0; i < 2; i++) { /* as when accepting pauses */
        REQUIRE(pw_poll_add(&poller, listener, &listening, PW_POLL_LISTENER) == 0);
        CHECK(is_reported(&listening, PW_READABLE));
        CHECK(is_reported(&listening, PW_READABLE));
        pw_poll_remove(&poller, listener);
        CHECK(is_quiet(&listening, ~0));
    }
    REQUIRE(pw_poll_add(&poller, listener, &listening, PW_POLL_LISTENER) == 0);
    pair_accept(&pair, listener);
    CHECK(is_quiet(&listening, ~0));
    pw_poll_remove(&poller, listener);
    close(listener);
    close(pair.ours);
    close(pair.theirs);
}

static void events_that_do_not_fit_into_one_wait_are_all_reported(void)
{
    enum { COUNT = PW_EVENTS_MOST + 100 };
    static test_pair pairs[COUNT];
    for (int i = 0; i < COUNT; i++) {
        pair_open(&pairs[i]);
        pair_send(&pairs[i]);
    }
    int reported = 0;
    for (int i = 0; i < COUNT; i++)
        reported += is_reported(&pairs[i], PW_READABLE);
    CHECK_INT(reported, COUNT);
    for (int i = 0; i < COUNT; i++)
        pair_close(&pairs[i]);
}

static void a_wait_ends_in_time(void)
{
    test_pair pair;
    pw_event events[PW_EVENTS_MOST];
    pair_open(&pair);
    is_quiet(&pair, 0);
    int64_t begin = now_ms();
    CHECK_INT(poller.poller->wait(&poller, events, 0), 0);
    CHECK(now_ms() - begin < TIMEOUT_MS);
    begin = now_ms();
    CHECK_INT(poller.poller->wait(&poller, events, 30), 0);
    int64_t waited = now_ms() - begin;
    CHECK(waited >= 29 && waited < TIMEOUT_MS);
    pair_close(&pair);
}

static void a_lower_limit_of_descriptors_hides_no_event(void)
{
    enum { COUNT = 20 };
    test_pair pairs[COUNT];
    struct rlimit before, lower;
    for (int i = 0; i < COUNT; i++)
        pair_open(&pairs[i]);
    getrlimit(RLIMIT_NOFILE, &before);
    lower = before;
    for (rlim_t limit = 0; limit < COUNT; limit += 7) {
        lower.rlim_cur = limit;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &lower) == 0);
        for (int i = 0; i < COUNT && limit > 0; i++) {
            pair_send(&pairs[i]);
            CHECK(is_reported(&pairs[i], PW_READABLE));
            pair_read(&pairs[i]);
            pair_want(&pairs[i], PW_READABLE);
        }
        CHECK(is_quiet(&pairs[0], PW_READABLE));
    }
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    for (int i = 0; i < COUNT; i++)
        pair_close(&pairs[i]);
}

static void missing_memory_is_an_error(void)
{
    static test_pair pairs[200]; /* more than fit at first */
    int error = 0, count = 0;
    for (; count < 200 && error == 0; count++) {
        pair_make(&pairs[count]);
        pw_alloc_fail_after(1);
        error = pw_poll_add(&poller, pairs[count].ours, &pairs[count], PW_POLL_EDGES);
        pw_alloc_fail_after(0);
    }
    CHECK_INT(error, strcmp(name, "poll") == 0 ? ENOMEM : 0);
    for (int i = 0; i < count; i++) {
        if (i == count - 1 && error != 0)
            pair_add(&pairs[i]);
        pair_want(&pairs[i], PW_READABLE);
        pair_send(&pairs[i]);
    }
    int reported = 0;
    for (int i = 0; i < count; i++)
        reported += is_reported(&pairs[i], PW_READABLE);
    CHECK_INT(reported, count);
    for (int i = 0; i < count; i++)
        pair_close(&pairs[i]);
}

/* ------------------------------------------------------------------ while another thread waits */

typedef struct {
    pthread_t thread;
    atomic_long number; /* the system's number of the thread */
    test_pair *pair;
    int what;
    bool reported;
} test_waiter;

static void *waiter_run(void *argument)
{
    test_waiter *waiter = argument;
    atomic_store(&waiter->number, syscall(SYS_gettid));
    int64_t end = now_ms() + TIMEOUT_MS;
    while ((waiter->pair->reported & waiter->what) == 0 && now_ms() < end)
        wait_once(TIMEOUT_MS);
    waiter->reported = (waiter->pair->reported & waiter->what) != 0;
    return NULL;
}

/* Returns when the thread waits in the poller. */
static void waiter_start(test_waiter *waiter, test_pair *pair, int what)
{
    *waiter = (test_waiter){.pair = pair, .what = what};
    pair->reported = 0;
    REQUIRE(pthread_create(&waiter->thread, NULL, waiter_run, waiter) == 0);
    for (char state = 'R'; state != 'S'; sched_yield()) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%ld/stat", atomic_load(&waiter->number));
        FILE *file = fopen(path, "r");
        if (file == NULL)
            continue;
        if (fscanf(file, "%*d %*s %c", &state) != 1)
            state = 'R';
        fclose(file);
    }
}

/* The wait must end much sooner than its timeout. */
static void waiter_finish(test_waiter *waiter)
{
    int64_t begin = now_ms();
    pthread_join(waiter->thread, NULL);
    CHECK(now_ms() - begin < TIMEOUT_MS / 2);
    CHECK(waiter->reported);
}

static void a_descriptor_added_during_a_wait_is_reported(void)
{
    test_waiter waiter;
    test_pair pair;
    pair_make(&pair);
    pair_send(&pair);
    waiter_start(&waiter, &pair, PW_READABLE);
    pair_add(&pair);
    pair_want(&pair, PW_READABLE);
    waiter_finish(&waiter);
    pair_close(&pair);
}

static void a_descriptor_added_during_a_wait_is_reported_later_too(void)
{
    test_waiter waiter;
    test_pair pairs[100];
    for (int i = 0; i < 100; i++)
        pair_make(&pairs[i]);
    waiter_start(&waiter, &pairs[99], PW_READABLE);
    for (int i = 0; i < 100; i++) {
        pair_add(&pairs[i]);
        pair_want(&pairs[i], PW_READABLE);
    }
    pair_send(&pairs[99]);
    waiter_finish(&waiter);
    for (int i = 0; i < 100; i++)
        pair_close(&pairs[i]);
}

static void an_event_requested_during_a_wait_is_reported(void)
{
    test_waiter waiter;
    test_pair pair;
    pair_open(&pair);
    fill(&pair);
    is_quiet(&pair, 0);
    waiter_start(&waiter, &pair, PW_WRITABLE);
    pair_want(&pair, PW_WRITABLE);
    drain(&pair);
    waiter_finish(&waiter);
    pair_close(&pair);
}

static void a_descriptor_removed_during_a_wait_is_not_reported(void)
{
    test_waiter waiter;
    test_pair one, other;
    pair_open(&one);
    pair_open(&other);
    is_quiet(&one, 0);
    waiter_start(&waiter, &other, PW_READABLE);
    int theirs = one.theirs;
    one.theirs = -1;
    one.reported = 0;
    pair_close(&one);
    send(theirs, "x", 1, MSG_NOSIGNAL);
    pair_send(&other);
    waiter_finish(&waiter);
    CHECK_INT(one.reported, 0);
    close(theirs);
    pair_close(&other);
}

static void a_descriptor_used_again_during_a_wait_has_the_new_tag(void)
{
    test_waiter waiter;
    test_pair old, new;
    pair_open(&old);
    is_quiet(&old, 0);
    waiter_start(&waiter, &new, PW_READABLE);
    int number = old.ours;
    pair_close(&old);
    pair_make(&new);
    if (new.ours != number) {
        REQUIRE(dup2(new.ours, number) == number);
        close(new.ours);
        new.ours = number;
    }
    pair_add(&new);
    pair_want(&new, PW_READABLE);
    pair_send(&new);
    waiter_finish(&waiter);
    CHECK_INT(old.reported & PW_READABLE, 0);
    pair_close(&new);
}

/* A second close closes nothing: its number may belong to another descriptor. */
static bool closes_nothing_after(void (*end)(pw_poll *))
{
    test_pair pair;
    int number = poller.fd;
    end(&poller);
    pair_make(&pair);
    if (number >= 0 && pair.ours != number) {
        REQUIRE(dup2(pair.ours, number) == number);
        close(pair.ours);
        pair.ours = number;
    }
    pw_poll_close(&poller);
    bool open = fcntl(pair.ours, F_GETFD) >= 0;
    close(pair.ours);
    close(pair.theirs);
    return open;
}

static void after_its_end_a_poller_closes_nothing(void)
{
    CHECK(closes_nothing_after(pw_poll_close));
}

static void after_a_fork_a_poller_closes_nothing(void)
{
    int status = -1;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        _exit(closes_nothing_after(pw_poll_forked) ? 0 : 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void descriptor_0_works_like_all_others(void)
{
    test_pair pair;
    int input = dup(STDIN_FILENO);
    pw_poll_close(&poller);
    close(STDIN_FILENO);
    CHECK_INT(pw_poll_open(&poller, name), 0);
    pair_open(&pair);
    pair_send(&pair);
    CHECK(is_reported(&pair, PW_READABLE));
    pair_close(&pair);
    pw_poll_close(&poller);
    if (input >= 0) {
        REQUIRE(dup2(input, STDIN_FILENO) == STDIN_FILENO);
        close(input);
    }
}

/* ------------------------------------------------------------------ all pollers */

static void with(void (*test)(void))
{
    for (int32_t i = 0; (name = pw_poller_name(i)) != NULL; i++) {
        ABOUT("the poller is %s", name);
        REQUIRE(pw_poll_open(&poller, name) == 0);
        CHECK_INT(strcmp(poller.poller->name, name), 0);
        test();
        pw_poll_close(&poller);
    }
}

#define EACH(test)                                                                                 \
    static void test##_with_each(void)                                                             \
    {                                                                                              \
        with(test);                                                                                \
    }
#define TESTS(X)                                                                                   \
    X(an_edge_is_reported_once)                                                                    \
    X(the_next_edge_is_reported_after_a_complete_read)                                             \
    X(earlier_bytes_are_reported)                                                                  \
    X(bytes_between_a_read_and_a_wait_are_reported)                                                \
    X(room_to_write_is_reported_on_request)                                                        \
    X(both_directions_are_reported)                                                                \
    X(half_a_close_is_an_end_to_read)                                                              \
    X(half_a_close_after_data_is_reported_too)                                                     \
    X(a_disconnect_is_reported_once_without_a_request)                                             \
    X(a_removed_descriptor_is_not_reported)                                                        \
    X(a_descriptor_that_waits_to_write_can_be_removed)                                             \
    X(a_descriptor_that_is_used_again_has_the_new_tag)                                             \
    X(a_level_is_reported_as_long_as_it_lasts)                                                     \
    X(a_level_is_reported_before_later_events)                                                     \
    X(a_listener_is_reported_as_long_as_a_client_waits)                                            \
    X(events_that_do_not_fit_into_one_wait_are_all_reported)                                       \
    X(a_wait_ends_in_time)                                                                         \
    X(a_lower_limit_of_descriptors_hides_no_event)                                                 \
    X(missing_memory_is_an_error)                                                                  \
    X(a_descriptor_added_during_a_wait_is_reported)                                                \
    X(a_descriptor_added_during_a_wait_is_reported_later_too)                                      \
    X(an_event_requested_during_a_wait_is_reported)                                                \
    X(a_descriptor_removed_during_a_wait_is_not_reported)                                          \
    X(a_descriptor_used_again_during_a_wait_has_the_new_tag)                                       \
    X(after_its_end_a_poller_closes_nothing)                                                       \
    X(after_a_fork_a_poller_closes_nothing)                                                        \
    X(descriptor_0_works_like_all_others)
TESTS(EACH)

static void a_poller_that_is_not_built_is_refused(void)
{
    CHECK_INT(pw_poll_open(&poller, "select"), ENOTSUP);
    CHECK_INT(pw_poll_open(&poller, ""), ENOTSUP);
    CHECK(pw_poller_name(-1) == NULL);
}

static void the_first_poller_is_the_default(void)
{
    const char *const any[] = {NULL, "auto", pw_poller_name(0)};
    for (int i = 0; i < 3; i++) {
        REQUIRE(pw_poll_open(&poller, any[i]) == 0);
        CHECK_INT(strcmp(poller.poller->name, pw_poller_name(0)), 0);
        pw_poll_close(&poller);
    }
}

int main(void)
{
    RUN(a_poller_that_is_not_built_is_refused);
    RUN(the_first_poller_is_the_default);
#define RUN_EACH(test) RUN(test##_with_each);
    TESTS(RUN_EACH)
    return check_end();
}
