/* csrc/content.c: memory, the temporary file, limits, and a full disk. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "alloc.h"
#include "check.h"
#include "content.h"

static char pattern[200000];
static pw_store small = {
    .memory_most = 1000, .memory_total = 5000, .size_most = 50000, .directory = "/tmp"};

/* Feeds pieces of `step` bytes. Returns the last outcome. *at is the number of bytes taken. */
static pw_parse feed(pw_content *content, pw_store *store, const char *data, size_t size,
                     size_t step, size_t *at, pw_error *error)
{
    pw_parse outcome = PW_PARSE_MORE;
    *at = 0;
    while (outcome == PW_PARSE_MORE && *at < size) {
        size_t used, piece = size - *at < step ? size - *at : step;
        outcome = pw_content_take(content, store, data + *at, piece, &used, error);
        CHECK(used <= piece);
        if (outcome == PW_PARSE_MORE)
            CHECK_INT(used, piece);
        *at += used;
    }
    return outcome;
}

static void check_is_pattern(const pw_content *content, int64_t size)
{
    CHECK_INT(content->size, size);
    if (content->file < 0) {
        CHECK(size == 0 || memcmp(content->memory, pattern, (size_t)size) == 0);
        return;
    }
    static char read_back[sizeof pattern];
    CHECK(content->memory == NULL);
    CHECK_INT(pread(content->file, read_back, sizeof read_back, 0), size);
    CHECK(memcmp(read_back, pattern, (size_t)size) == 0);
}

static void content_with_a_length_is_kept_in_memory_up_to_the_limit(void)
{
    for (int64_t length = 999; length <= 1001; length++) {
        pw_content *content = pw_content_new(length);
        size_t at;
        pw_error error;
        ABOUT("length %d", (int)length);
        CHECK_INT(feed(content, &small, pattern, 5000, 77, &at, &error), PW_PARSE_DONE);
        CHECK_INT(at, length); /* and no later byte */
        CHECK((content->file >= 0) == (length > 1000));
        check_is_pattern(content, length);
        pw_content_free(content, &small);
    }
}

static void the_temporary_file_has_no_name(void)
{
    char directory[] = "/tmp/picowsgi-test-XXXXXX";
    REQUIRE(mkdtemp(directory) != NULL);
    pw_store store = small;
    store.directory = directory;
    pw_content *content = pw_content_new(2000);
    CHECK_INT(pw_content_add(content, &store, pattern, 2000), PW_E_NONE);
    CHECK(content->file >= 0);
    CHECK(rmdir(directory) == 0); /* it is empty */
    pw_content_free(content, &store);
}

/* A process without standard input gets the descriptor 0. */
static void the_temporary_file_may_be_descriptor_0_and_is_closed(void)
{
    pw_store store = small;
    int standard_input = fcntl(0, F_DUPFD_CLOEXEC, 3);
    close(0);
    pw_content *content = pw_content_new(2000);
    CHECK_INT(pw_content_add(content, &store, pattern, 2000), PW_E_NONE);
    CHECK_INT(content->file, 0);
    check_is_pattern(content, 2000);
    pw_content_free(content, &store);
    CHECK(fcntl(0, F_GETFD) < 0);
    if (standard_input >= 0) {
        dup2(standard_input, 0);
        close(standard_input);
    }
}

/* With a length and chunked in turn. */
static void all_requests_share_the_memory(void)
{
    pw_store store = small;
    pw_content *contents[8];
    for (int i = 0; i < 8; i++) {
        contents[i] = pw_content_new(i % 2 == 0 ? 1000 : -1);
        REQUIRE(contents[i] != NULL);
        CHECK_INT(pw_content_add(contents[i], &store, pattern, 900), PW_E_NONE);
        ABOUT("content %d", i);
        CHECK((contents[i]->file >= 0) == (i >= 5));
        CHECK_INT(store.held, 1000 * (i < 5 ? i + 1 : 5));
        check_is_pattern(contents[i], 900);
    }
    CHECK(pw_content_space(contents[0], &store, 100) != NULL); /* it has its memory already */
    CHECK(pw_content_space(contents[6], &store, 100) == NULL);
    pw_content_free(contents[0], &store);
    CHECK_INT(store.held, 4000);
    pw_content *next = pw_content_new(1000); /* uses the memory of the one that has ended */
    CHECK(pw_content_space(next, &store, 1000) != NULL);
    pw_content_free(next, &store);
    CHECK_INT(pw_content_add(contents[6], &store, pattern + 900, 100), PW_E_NONE);
    check_is_pattern(contents[6], 1000); /* content that began in a file stays there */
    CHECK_INT(pw_content_add(contents[1], &store, pattern + 900, 101), PW_E_NONE);
    check_is_pattern(contents[1], 1001);
    CHECK(contents[1]->file >= 0);
    CHECK_INT(store.held, 3000);
    for (int i = 1; i < 8; i++)
        pw_content_free(contents[i], &store);
    CHECK_INT(store.held, 0);
}

static void announced_content_must_fit_although_little_has_arrived(void)
{
    pw_store store = small;
    store.memory_total = 100;
    pw_content *content = pw_content_new(101);
    CHECK_INT(pw_content_add(content, &store, pattern, 1), PW_E_NONE);
    CHECK(content->file >= 0);
    pw_content_free(content, &store);
    content = pw_content_new(-1);
    CHECK_INT(pw_content_add(content, &store, pattern, 101), PW_E_NONE);
    CHECK(content->file >= 0);
    check_is_pattern(content, 101);
    pw_content_free(content, &store);
    CHECK_INT(store.held, 0);
}

/* pattern[0, size) in chunks of `step` bytes. */
static void chunks_of(test_text *to, size_t size, size_t step)
{
    for (size_t at = 0; at < size; at += step) {
        size_t piece = size - at < step ? size - at : step;
        char line[20];
        char digits[16];
        size_t count = 0;
        for (size_t left = piece; left > 0; left >>= 4)
            digits[count++] = "0123456789abcdef"[left & 15];
        for (size_t i = 0; i < count; i++)
            line[i] = digits[count - 1 - i];
        text_add(to, line, count);
        text_add(to, LITERAL("\r\n"));
        text_add(to, pattern + at, piece);
        text_add(to, LITERAL("\r\n"));
    }
    text_add(to, LITERAL("0\r\n\r\n"));
}

static void chunked_content_moves_to_a_file_when_it_grows(void)
{
    static const size_t sizes[] = {0, 1, 999, 1000, 1001, 40000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t step = 1; step <= 10000; step = step * 7 + 3) {
            test_text data = {NULL, 0, 0};
            chunks_of(&data, sizes[i], 300);
            text_add(&data, LITERAL("GET"));
            pw_content *content = pw_content_new(-1);
            size_t at;
            pw_error error;
            ABOUT("%zu bytes in pieces of %zu", sizes[i], step);
            CHECK_INT(feed(content, &small, data.at, data.size, step, &at, &error), PW_PARSE_DONE);
            CHECK_INT(at, data.size - 3);
            CHECK((content->file >= 0) == (sizes[i] > 1000));
            check_is_pattern(content, (int64_t)sizes[i]);
            CHECK(content->room <= 1000);
            pw_content_free(content, &small);
            text_free(&data);
        }
}

/* The number of write(2) and similar calls of this process. -1: the system does not say. */
static long count_writes(void)
{
    FILE *file = fopen("/proc/self/io", "r");
    long count = -1;
    for (char line[100]; file != NULL && fgets(line, sizeof line, file) != NULL;)
        if (sscanf(line, "syscw: %ld", &count) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return count;
}

static void small_chunks_are_written_to_the_file_together(void)
{
    for (size_t step = 1; step <= 100; step += 33) {
        test_text chunks = {NULL, 0, 0};
        const size_t size = 40000;
        chunks_of(&chunks, size, step);
        pw_content *content = pw_content_new(-1);
        size_t at;
        pw_error error;
        long before = count_writes();
        CHECK_INT(feed(content, &small, chunks.at, chunks.size, 131072, &at, &error),
                  PW_PARSE_DONE);
        long writes = count_writes() - before;
        ABOUT("chunks of %zu, %ld writes", step, writes);
        CHECK(writes < 20 && (before < 0 || writes > 0));
        check_is_pattern(content, (int64_t)size);
        pw_content_free(content, &small);
        text_free(&chunks);
    }
}

static void content_over_the_limit_is_refused_as_soon_as_it_is_announced(void)
{
    pw_content *content = pw_content_new(-1);
    size_t used;
    pw_error error = PW_E_NONE;
    CHECK_INT(pw_content_take(content, &small, LITERAL("c350\r\n"), &used, &error), PW_PARSE_MORE);
    pw_content_free(content, &small);
    content = pw_content_new(-1);
    CHECK_INT(pw_content_take(content, &small, LITERAL("c351\r\n"), &used, &error), PW_PARSE_ERROR);
    CHECK_INT(error, PW_E_BODY_SIZE);
    pw_content_free(content, &small);
    content = pw_content_new(-1);
    CHECK_INT(pw_content_take(content, &small, LITERAL("7fffffffffffffff\r\nx"), &used, &error),
              PW_PARSE_ERROR);
    CHECK_INT(error, PW_E_BODY_SIZE);
    CHECK_INT(pw_content_add(content, &small, pattern, 50001), PW_E_BODY_SIZE);
    pw_content_free(content, &small);

    pw_store unlimited = small;
    unlimited.size_most = 0;
    content = pw_content_new(-1);
    CHECK_INT(pw_content_add(content, &unlimited, pattern, sizeof pattern), PW_E_NONE);
    CHECK_INT(pw_content_take(content, &unlimited, LITERAL("7fffffffffffffff\r\nx"), &used, &error),
              PW_PARSE_MORE);
    pw_content_free(content, &small);
}

static void malformed_chunks_are_an_error_of_their_own(void)
{
    pw_content *content = pw_content_new(-1);
    size_t used;
    pw_error error = PW_E_NONE;
    CHECK_INT(pw_content_take(content, &small, LITERAL("5\r\nhello!"), &used, &error),
              PW_PARSE_ERROR);
    CHECK_INT(error, PW_E_CHUNK);
    pw_content_free(content, &small);
}

static void a_full_disk_is_an_error(void)
{
    struct rlimit before, full;
    getrlimit(RLIMIT_FSIZE, &before);
    full = before;
    full.rlim_cur = 3000;
    signal(SIGXFSZ, SIG_DFL); /* an application may do this; the signal must not end the process */
    setrlimit(RLIMIT_FSIZE, &full);
    pw_content *content = pw_content_new(10000);
    CHECK_INT(pw_content_add(content, &small, pattern, 2000), PW_E_NONE);
    CHECK_INT(pw_content_add(content, &small, pattern, 2000), PW_E_STORAGE);
    pw_content_free(content, &small);
    content = pw_content_new(-1); /* the disk is full when the memory is moved to the file */
    full.rlim_cur = 500;
    setrlimit(RLIMIT_FSIZE, &full);
    CHECK_INT(pw_content_add(content, &small, pattern, 1000), PW_E_NONE);
    CHECK_INT(pw_content_add(content, &small, pattern, 1), PW_E_STORAGE);
    pw_content_free(content, &small);
    setrlimit(RLIMIT_FSIZE, &before);
}

static void a_missing_directory_or_descriptor_is_the_same_error(void)
{
    pw_store store = small;
    store.directory = "/nonexistent";
    pw_content *content = pw_content_new(2000);
    CHECK_INT(pw_content_add(content, &store, pattern, 5), PW_E_STORAGE);
    pw_content_free(content, &small);

    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 0;
    content = pw_content_new(2000);
    setrlimit(RLIMIT_NOFILE, &none);
    CHECK_INT(pw_content_add(content, &small, pattern, 5), PW_E_STORAGE);
    setrlimit(RLIMIT_NOFILE, &before);
    pw_content_free(content, &small);
}

static void missing_memory_is_another_error(void)
{
    pw_alloc_fail_after(1);
    CHECK(pw_content_new(5) == NULL);
    pw_alloc_fail_after(2);
    pw_content *content = pw_content_new(5);
    CHECK_INT(pw_content_add(content, &small, pattern, 5), PW_E_MEMORY);
    pw_alloc_fail_after(0);
    CHECK_INT(pw_content_add(content, &small, pattern, 5), PW_E_NONE);
    check_is_pattern(content, 5);
    pw_content_free(content, &small);
    pw_content_free(NULL, &small);
    CHECK_INT(small.held, 0);
}

int main(void)
{
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)(i * 31 + i / 251);
    RUN(content_with_a_length_is_kept_in_memory_up_to_the_limit);
    RUN(the_temporary_file_has_no_name);
    RUN(the_temporary_file_may_be_descriptor_0_and_is_closed);
    RUN(all_requests_share_the_memory);
    RUN(announced_content_must_fit_although_little_has_arrived);
    RUN(chunked_content_moves_to_a_file_when_it_grows);
    RUN(small_chunks_are_written_to_the_file_together);
    RUN(content_over_the_limit_is_refused_as_soon_as_it_is_announced);
    RUN(malformed_chunks_are_an_error_of_their_own);
    RUN(a_full_disk_is_an_error);
    RUN(a_missing_directory_or_descriptor_is_the_same_error);
    RUN(missing_memory_is_another_error);
    return check_end();
}
