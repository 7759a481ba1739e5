/* The pool of receive buffers, and room in one of them. */
#include <string.h>

#include "alloc.h"
#include "buffer.h"

static pw_buffer *buffer_new(size_t size)
{
    if (size > SIZE_MAX - sizeof(pw_buffer))
        return NULL;
    pw_buffer *buffer = pw_realloc(NULL, sizeof(pw_buffer) + size);
    if (buffer == NULL)
        return NULL;
    buffer->next = NULL;
    buffer->size = size;
    buffer->start = 0;
    buffer->end = 0;
    return buffer;
}

/* Takes a buffer of this size from the pool, or allocates one. */
static pw_buffer *buffer_take(pw_pool *pool, size_t size)
{
    pw_buffer *buffer = size == PW_BUFFER_SIZE ? pool->first : NULL;
    if (buffer != NULL) {
        pool->first = buffer->next;
        pool->count--;
        buffer->next = NULL;
        buffer->start = 0;
        buffer->end = 0;
    } else {
        buffer = buffer_new(size);
    }
    if (buffer != NULL)
        pool->held += size;
    return buffer;
}

pw_buffer *pw_buffer_get(pw_pool *pool)
{
    return buffer_take(pool, PW_BUFFER_SIZE);
}

void pw_buffer_put(pw_pool *pool, pw_buffer *buffer)
{
    pool->held -= buffer->size;
    if (buffer->size != PW_BUFFER_SIZE || pool->count >= PW_POOL_MOST) {
        pw_free(buffer);
        return;
    }
    buffer->next = pool->first;
    pool->first = buffer;
    pool->count++;
}

/* Moves the bytes to a buffer of this size. False: out of memory. */
static bool buffer_move(pw_pool *pool, pw_buffer **at, size_t size)
{
    pw_buffer *old = *at, *new = buffer_take(pool, size);
    if (new == NULL)
        return false;
    new->end = old->end - old->start;
    memcpy(new->data, old->data + old->start, new->end);
    pw_buffer_put(pool, old);
    *at = new;
    return true;
}

bool pw_buffer_room(pw_pool *pool, pw_buffer **at, size_t want)
{
    pw_buffer *buffer = *at;
    size_t held = buffer->end - buffer->start;
    if (buffer->size - buffer->end >= want)
        return true;
    if (buffer->size - held >= want) {
        memmove(buffer->data, buffer->data + buffer->start, held);
        buffer->start = 0;
        buffer->end = held;
        return true;
    }
    if (want > SIZE_MAX / 4 || held > SIZE_MAX / 4)
        return false;
    size_t size = buffer->size;
    while (size - held < want)
        size *= 2;
    return buffer_move(pool, at, size);
}

bool pw_buffer_trim(pw_pool *pool, pw_buffer **at)
{
    size_t held = (*at)->end - (*at)->start, size = PW_BUFFER_LEAST;
    while (size < 2 * held) /* room for as much again, so that the buffer is not enlarged soon */
        size *= 2;
    return size <= (*at)->size / 2 && buffer_move(pool, at, size);
}

void pw_pool_free(pw_pool *pool)
{
    while (pool->first != NULL) {
        pw_buffer *buffer = pool->first;
        pool->first = buffer->next;
        pw_free(buffer);
    }
    pool->count = 0;
}
