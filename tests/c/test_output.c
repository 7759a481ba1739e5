/* csrc/output.c over a socket pair with small buffers: no byte is lost, doubled or out of order. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "alloc.h"
#include "check.h"
#include "output.h"

static char pattern[1 << 20];

typedef struct {
    int ours, theirs;
    pw_output output;
    test_text got;
} test_pair;

static test_pair pair_open(void)
{
    test_pair pair = {.ours = -1};
    int fds[2], size = 4096;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    pair.ours = fds[0];
    pair.theirs = fds[1];
    return pair;
}

static void pair_close(test_pair *pair)
{
    pw_output_free(&pair->output);
    CHECK_INT(pair->output.size, 0);
    CHECK_INT(pair->output.borrowed, 0);
    close(pair->ours);
    close(pair->theirs);
    text_free(&pair->got);
}

/* Receives `most` bytes at most. */
static void pair_receive(test_pair *pair, size_t most)
{
    char part[5000];
    while (most > 0) {
        ssize_t size = recv(pair->theirs, part, most < sizeof part ? most : sizeof part, 0);
        if (size <= 0)
            return;
        text_add(&pair->got, part, (size_t)size);
        most -= (size_t)size;
    }
}

/* Flushes and receives in turn until all bytes have arrived. */
static void pair_finish(test_pair *pair, size_t step)
{
    for (int turns = 0; pair->output.first != NULL && turns < 100000; turns++) {
        bool progress = false;
        int64_t before = pair->output.size;
        pw_io outcome = pw_output_flush(&pair->output, pair->ours, &progress);
        if (!CHECK(outcome == PW_IO_OK || outcome == PW_IO_RETRY))
            return;
        CHECK(progress == (pair->output.size < before));
        pair_receive(pair, step);
    }
    pair_receive(pair, SIZE_MAX);
    CHECK(pair->output.first == NULL && pair->output.last == NULL);
    CHECK_INT(pair->output.size, 0);
    CHECK_INT(pair->output.borrowed, 0);
}

static void small_copies_share_a_piece(void)
{
    test_pair pair = pair_open();
    CHECK(pw_output_copy(&pair.output, LITERAL("one ")));
    CHECK(pw_output_copy(&pair.output, LITERAL("two ")));
    CHECK(pair.output.first == pair.output.last);
    CHECK(pw_output_copy(&pair.output, pattern, 3000));
    CHECK(pair.output.first != pair.output.last);
    CHECK_INT(pair.output.size, 3008);
    pair_finish(&pair, SIZE_MAX);
    CHECK_INT(pair.got.size, 3008);
    CHECK_BYTES(pair.got.at, 8, "one two ");
    pair_close(&pair);
}

static void copies_are_added_after_a_piece_that_is_partly_sent(void)
{
    test_pair pair = pair_open();
    test_text expected = {NULL, 0, 0};
    CHECK(pw_output_copy(&pair.output, pattern, 60000));
    text_add(&expected, pattern, 60000);
    for (int i = 0; i < 200; i++) {
        bool progress = false;
        CHECK(pw_output_copy(&pair.output, pattern + i * 100, 100));
        text_add(&expected, pattern + i * 100, 100);
        pw_output_flush(&pair.output, pair.ours, &progress);
        pair_receive(&pair, 700);
    }
    pair_finish(&pair, 700);
    CHECK(text_same(&pair.got, &expected));
    text_free(&expected);
    pair_close(&pair);
}

/* Copied, borrowed and file pieces arrive in their order. */
static void pieces_of_all_kinds_keep_their_order(void)
{
    char name[] = "/tmp/picowsgi-test-XXXXXX";
    int file = mkstemp(name);
    REQUIRE(file >= 0 && unlink(name) == 0);
    REQUIRE(write(file, pattern, 100000) == 100000);
    for (size_t step = 300; step < 100000; step = step * 5) {
        test_pair pair = pair_open();
        test_text expected = {NULL, 0, 0};
        for (size_t i = 0; i < 200; i++) {
            size_t at = i * 257, size = i * 40 + 1;
            if (i % 5 == 4)
                CHECK(pw_output_file(&pair.output, file, (off_t)at, size));
            else if (i % 5 == 2)
                CHECK(pw_output_borrow(&pair.output, pattern + at, size));
            else
                CHECK(pw_output_copy(&pair.output, pattern + at, size));
            text_add(&expected, pattern + at, size);
        }
        ABOUT("steps of %zu", step);
        CHECK_INT(pair.output.borrowed, 40);
        CHECK_INT(pair.output.size, expected.size);
        pair_finish(&pair, step);
        CHECK(text_same(&pair.got, &expected));
        text_free(&expected);
        pair_close(&pair);
    }
    CHECK_INT(lseek(file, 0, SEEK_CUR), 100000); /* the descriptor's position has not moved */
    close(file);
}

static void bytes_that_the_socket_refuses_are_copied_when_small_and_borrowed_when_large(void)
{
    test_pair pair = pair_open();
    struct iovec parts[3] = {{pattern, 100}, {pattern, 0}, {pattern + 100, 500000}};
    CHECK_INT(pw_output_write(&pair.output, pair.ours, parts, 3), PW_IO_RETRY);
    CHECK_INT(pair.output.borrowed, 1);
    CHECK(pair.output.first->at > pattern && pair.output.first->at < pattern + 500100);
    int64_t left = pair.output.size;
    CHECK(left > 0 && left < 500100);

    struct iovec more[2] = {{pattern + 500100, PW_COPY_MOST},
                            {pattern + 500100 + PW_COPY_MOST, PW_COPY_MOST + 1}};
    CHECK_INT(pw_output_write(&pair.output, pair.ours, more, 2), PW_IO_RETRY);
    CHECK_INT(pair.output.borrowed, 2);
    CHECK_INT(pair.output.size, left + 2 * PW_COPY_MOST + 1);
    pair_finish(&pair, 10000);
    CHECK_INT(pair.got.size, 500100 + 2 * PW_COPY_MOST + 1);
    CHECK(memcmp(pair.got.at, pattern, pair.got.size) == 0);
    pair_close(&pair);
}

static void a_write_that_the_socket_takes_whole_keeps_nothing(void)
{
    test_pair pair = pair_open();
    struct iovec parts[3] = {{pattern, 10}, {NULL, 0}, {pattern + 10, 20}};
    CHECK_INT(pw_output_write(&pair.output, pair.ours, parts, 3), PW_IO_OK);
    CHECK(pair.output.first == NULL);
    pair_receive(&pair, SIZE_MAX);
    CHECK_INT(pair.got.size, 30);
    CHECK(memcmp(pair.got.at, pattern, 30) == 0);
    pair_close(&pair);
}

static void each_borrowed_piece_is_counted_until_it_is_gone(void)
{
    test_pair pair = pair_open();
    for (size_t i = 0; i < 10; i++)
        CHECK(pw_output_borrow(&pair.output, pattern + i * 50000, 50000));
    int32_t before = pair.output.borrowed;
    CHECK_INT(before, 10);
    while (pair.output.first != NULL) {
        bool progress = false;
        pw_output_flush(&pair.output, pair.ours, &progress);
        pair_receive(&pair, 20000);
        CHECK(pair.output.borrowed <= before);
        CHECK_INT(pair.output.borrowed, (pair.output.size + 49999) / 50000);
        before = pair.output.borrowed;
    }
    pair_finish(&pair, 20000);
    CHECK(memcmp(pair.got.at, pattern, 500000) == 0);
    pair_close(&pair);
}

static void a_disconnected_client_is_an_error(void)
{
    test_pair pair = pair_open();
    bool progress = false;
    close(pair.theirs);
    pair.theirs = -1;
    struct iovec part = {pattern, 100};
    CHECK_INT(pw_output_write(&pair.output, pair.ours, &part, 1), PW_IO_ERROR);
    CHECK(pw_output_copy(&pair.output, pattern, 100));
    CHECK_INT(pw_output_flush(&pair.output, pair.ours, &progress), PW_IO_ERROR);
    CHECK(!progress);
    pair_close(&pair);
}

static void a_file_that_has_become_shorter_is_an_error(void)
{
    test_pair pair = pair_open();
    char name[] = "/tmp/picowsgi-test-XXXXXX";
    int file = mkstemp(name);
    REQUIRE(file >= 0 && unlink(name) == 0);
    REQUIRE(write(file, pattern, 100) == 100);
    CHECK(pw_output_file(&pair.output, file, 0, 200));
    close(file); /* the output has a duplicate */
    bool progress = false;
    CHECK_INT(pw_output_flush(&pair.output, pair.ours, &progress), PW_IO_ERROR);
    pair_receive(&pair, SIZE_MAX);
    CHECK_INT(pair.got.size, 100);
    pair_close(&pair);
}

/* The disk is full at the first byte, in the middle of a part, and again after it had room. */
static void bytes_that_do_not_fit_on_the_disk_do_not_change_the_output(void)
{
    struct rlimit before, full;
    getrlimit(RLIMIT_FSIZE, &before);
    full = before;
    signal(SIGXFSZ, SIG_DFL); /* an application may do this; the signal must not end the process */
    for (rlim_t room = 0; room <= 3000; room += 1000) {
        pw_store store = {.spool_most = 1 << 20, .spool_total = 1 << 20, .directory = "/tmp"};
        test_pair pair = pair_open();
        test_text expected = {NULL, 0, 0};
        full.rlim_cur = room;
        for (size_t i = 0; i < 8; i++) {
            const struct iovec parts[2] = {{pattern + i * 700, 300},
                                           {pattern + i * 700 + 300, 400}};
            int64_t size = pair.output.size, spooled = store.spooled;
            setrlimit(RLIMIT_FSIZE, &full);
            bool fits = pw_output_spool(&pair.output, &store, parts, 2);
            setrlimit(RLIMIT_FSIZE, &before);
            CHECK_INT(fits, (i % 4 + 1) * 700 <= room);
            if (!fits) {
                CHECK_INT(pair.output.size, size);
                CHECK_INT(store.spooled, spooled);
                CHECK(pw_output_keep(&pair.output, parts, 2));
            }
            text_add(&expected, pattern + i * 700, 700);
            if (i == 3)
                pair_finish(&pair, 100); /* which empties the file */
        }
        pair_finish(&pair, 100);
        CHECK(text_same(&pair.got, &expected));
        pw_output_close_spool(&pair.output);
        CHECK_INT(store.spooled, 0);
        text_free(&expected);
        pair_close(&pair);
    }
}

static void without_memory_nothing_is_added(void)
{
    test_pair pair = pair_open();
    pw_alloc_fail_after(1);
    CHECK(!pw_output_copy(&pair.output, pattern, 10));
    CHECK(!pw_output_borrow(&pair.output, pattern, 10));
    CHECK(!pw_output_file(&pair.output, pair.ours, 0, 10));
    pw_alloc_fail_after(0);
    CHECK(pair.output.first == NULL);
    CHECK(!pw_output_file(&pair.output, -1, 0, 10)); /* nor without a descriptor */
    pair_close(&pair);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)(i * 31 + i / 251);
    RUN(small_copies_share_a_piece);
    RUN(copies_are_added_after_a_piece_that_is_partly_sent);
    RUN(pieces_of_all_kinds_keep_their_order);
    RUN(bytes_that_the_socket_refuses_are_copied_when_small_and_borrowed_when_large);
    RUN(a_write_that_the_socket_takes_whole_keeps_nothing);
    RUN(each_borrowed_piece_is_counted_until_it_is_gone);
    RUN(a_disconnected_client_is_an_error);
    RUN(a_file_that_has_become_shorter_is_an_error);
    RUN(bytes_that_do_not_fit_on_the_disk_do_not_change_the_output);
    RUN(without_memory_nothing_is_added);
    return check_end();
}
