/* csrc/buffer.c: the allocator's hook, the pool, and room in a buffer. */
#include <string.h>

#include "alloc.h"
#include "buffer.h"
#include "check.h"

static void the_nth_allocation_fails_and_so_do_all_after_it(void)
{
    pw_alloc_fail_after(2);
    void *first = pw_alloc(8);
    CHECK(first != NULL);
    CHECK(pw_alloc(8) == NULL);
    CHECK(pw_alloc(8) == NULL);
    CHECK(pw_realloc(first, 16) == NULL); /* a failed call does not change it */
    pw_alloc_fail_after(0);
    void *moved = pw_realloc(first, 16);
    CHECK(moved != NULL);
    pw_free(moved);
}

static void allocated_memory_is_zero(void)
{
    unsigned char *memory = pw_alloc(1000);
    for (size_t i = 0; i < 1000; i++)
        CHECK(memory[i] == 0);
    pw_free(memory);
}

static void a_freed_buffer_is_the_next_one_to_be_used(void)
{
    pw_pool pool = {NULL, 0, 0};
    pw_buffer *one = pw_buffer_get(&pool), *two = pw_buffer_get(&pool);
    CHECK(one != two);
    one->start = 7;
    one->end = 9;
    pw_buffer_put(&pool, two);
    pw_buffer_put(&pool, one);
    CHECK_INT(pool.count, 2);
    pw_buffer *again = pw_buffer_get(&pool);
    CHECK(again == one);
    CHECK_INT(again->start, 0);
    CHECK_INT(again->end, 0);
    CHECK(again->next == NULL);
    pw_buffer_put(&pool, again);
    pw_pool_free(&pool);
    CHECK(pool.first == NULL);
}

static void the_pool_keeps_no_more_buffers_than_its_limit_and_no_odd_sizes(void)
{
    enum { MANY = PW_POOL_MOST + 8 };
    pw_pool pool = {NULL, 0, 0};
    pw_buffer *buffers[MANY];
    for (int i = 0; i < MANY; i++)
        buffers[i] = pw_buffer_get(&pool);
    CHECK(pw_buffer_room(&pool, &buffers[0], PW_BUFFER_SIZE + 1));
    for (int i = 0; i < MANY; i++)
        pw_buffer_put(&pool, buffers[i]);
    CHECK_INT(pool.count, PW_POOL_MOST);
    for (const pw_buffer *buffer = pool.first; buffer != NULL; buffer = buffer->next)
        CHECK_INT(buffer->size, PW_BUFFER_SIZE);
    pw_pool_free(&pool);
}

static void a_buffer_makes_room_by_moving_its_bytes_and_by_growing(void)
{
    pw_pool pool = {NULL, 0, 0};
    pw_buffer *buffer = pw_buffer_get(&pool), *same = buffer;
    memset(buffer->data, 'a', PW_BUFFER_SIZE);
    memcpy(buffer->data + PW_BUFFER_SIZE - 5, "hello", 5);
    buffer->start = PW_BUFFER_SIZE - 5;
    buffer->end = PW_BUFFER_SIZE;
    CHECK(pw_buffer_room(&pool, &buffer, 0));
    CHECK_INT(buffer->start, PW_BUFFER_SIZE - 5);

    CHECK(pw_buffer_room(&pool, &buffer, PW_BUFFER_SIZE - 5));
    CHECK(buffer == same);
    CHECK_BYTES(buffer->data + buffer->start, buffer->end - buffer->start, "hello");

    CHECK(pw_buffer_room(&pool, &buffer, PW_BUFFER_SIZE - 4));
    CHECK(buffer != same);
    CHECK_BYTES(buffer->data + buffer->start, buffer->end - buffer->start, "hello");
    CHECK(buffer->size - buffer->end >= PW_BUFFER_SIZE - 4);
    CHECK_INT(pool.count, 1); /* the small one is back in the pool */
    memset(buffer->data + buffer->end, 'b', buffer->size - buffer->end);
    pw_buffer_put(&pool, buffer);
    pw_pool_free(&pool);
}

static void without_memory_a_buffer_does_not_change(void)
{
    pw_pool pool = {NULL, 0, 0};
    pw_buffer *buffer = pw_buffer_get(&pool), *same = buffer;
    memcpy(buffer->data, "hello", 5);
    buffer->end = 5;
    CHECK(!pw_buffer_room(&pool, &buffer, SIZE_MAX - 3));
    pw_alloc_fail_after(1);
    CHECK(!pw_buffer_room(&pool, &buffer, PW_BUFFER_SIZE));
    CHECK(pw_buffer_get(&pool) == NULL);
    pw_alloc_fail_after(0);
    CHECK(buffer == same);
    CHECK_BYTES(buffer->data, buffer->end, "hello");
    pw_buffer_put(&pool, buffer);
    pw_pool_free(&pool);
}

int main(void)
{
    RUN(the_nth_allocation_fails_and_so_do_all_after_it);
    RUN(allocated_memory_is_zero);
    RUN(a_freed_buffer_is_the_next_one_to_be_used);
    RUN(the_pool_keeps_no_more_buffers_than_its_limit_and_no_odd_sizes);
    RUN(a_buffer_makes_room_by_moving_its_bytes_and_by_growing);
    RUN(without_memory_a_buffer_does_not_change);
    return check_end();
}
