/*
 * Stores a request's content until it is complete: in memory, or in a temporary file without a name
 * if it exceeds its own limit or the limit for all requests.
 */
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "chunked.h"
#include "content.h"
#include "store.h"

pw_content *pw_content_new(int64_t length)
{
    pw_content *content = pw_alloc(sizeof *content);
    if (content == NULL)
        return NULL;
    content->length = length;
    content->file = -1;
    return content;
}

/* Frees the memory, so that other requests can use it. */
static void content_forget(pw_content *content, pw_store *store)
{
    store->held -= (int64_t)content->room;
    pw_free(content->memory);
    content->memory = NULL;
    content->room = 0;
}

void pw_content_free(pw_content *content, pw_store *store)
{
    if (content == NULL)
        return;
    if (content->file >= 0)
        close(content->file);
    content_forget(content, store);
    pw_free(content);
}

/* The memory to allocate for `needed` bytes. It doubles, up to the announced size. */
static size_t content_room(const pw_content *content, const pw_store *store, size_t needed)
{
    if (content->room >= needed)
        return content->room;
    if (content->length >= 0)
        return (size_t)content->length;
    size_t room = content->room < 4096 ? 4096 : content->room * 2;
    if ((int64_t)room > store->memory_most)
        room = (size_t)store->memory_most;
    return room < needed ? needed : room;
}

/* Whether `more` bytes, and all announced bytes, fit into memory. */
static bool content_fits(const pw_content *content, const pw_store *store, size_t more)
{
    int64_t needed = content->size + (int64_t)more;
    if (content->file >= 0 ||
        (content->length >= 0 ? content->length : needed) > store->memory_most)
        return false;
    size_t grows = content_room(content, store, (size_t)needed) - content->room;
    return (int64_t)grows <= store->memory_total - store->held;
}

static bool content_grow(pw_content *content, pw_store *store, size_t more)
{
    size_t room = content_room(content, store, (size_t)content->size + more);
    if (room == content->room)
        return true;
    char *memory = pw_realloc(content->memory, room);
    if (memory == NULL)
        return false;
    store->held += (int64_t)(room - content->room);
    content->memory = memory;
    content->room = room;
    return true;
}

static bool content_write(const pw_content *content, const char *data, size_t size, int64_t at)
{
    struct iovec part = {(void *)(uintptr_t)data, size};
    return pw_write_parts(content->file, &part, 1, (off_t)at);
}

/* Moves the content from memory to the file. */
static pw_error content_spill(pw_content *content, pw_store *store)
{
    content->file = pw_temporary_file(store->directory);
    if (content->file < 0 || !content_write(content, content->memory, (size_t)content->size, 0))
        return PW_E_STORAGE;
    content_forget(content, store);
    return PW_E_NONE;
}

pw_error pw_content_add(pw_content *content, pw_store *store, const char *data, size_t size)
{
    int64_t more = (int64_t)size;
    if (store->size_most != 0 && content->size > store->size_most - more)
        return PW_E_BODY_SIZE;
    if (content_fits(content, store, size)) {
        if (!content_grow(content, store, size))
            return PW_E_MEMORY;
        memcpy(content->memory + content->size, data, size);
        content->size += more;
        return PW_E_NONE;
    }
    if (content->file < 0) {
        pw_error error = content_spill(content, store);
        if (error != PW_E_NONE)
            return error;
    }
    if (!content_write(content, data, size, content->size))
        return PW_E_STORAGE;
    content->size += more;
    return PW_E_NONE;
}

char *pw_content_space(pw_content *content, pw_store *store, size_t size)
{
    if (content->length < 0 || !content_fits(content, store, size) ||
        !content_grow(content, store, size))
        return NULL;
    return content->memory + content->size;
}

/* Collects small runs of content for pw_content_add, which may write them to a file. */
typedef struct {
    size_t size;
    char bytes[8192];
} pw_gathered;

static pw_error gathered_add(pw_gathered *gathered, pw_content *content, pw_store *store)
{
    size_t size = gathered->size;
    gathered->size = 0;
    return size > 0 ? pw_content_add(content, store, gathered->bytes, size) : PW_E_NONE;
}

/* Adds a run of content. A small run waits for the next one. */
static pw_error gather(pw_gathered *gathered, pw_content *content, pw_store *store, pw_span span)
{
    if (span.size > sizeof gathered->bytes - gathered->size) {
        pw_error error = gathered_add(gathered, content, store);
        if (error != PW_E_NONE)
            return error;
    }
    if (span.size > sizeof gathered->bytes)
        return pw_content_add(content, store, span.at, span.size);
    memcpy(gathered->bytes + gathered->size, span.at, span.size);
    gathered->size += span.size;
    return PW_E_NONE;
}

static pw_parse content_take_chunked(pw_content *content, pw_store *store, const char *data,
                                     size_t size, size_t *used, pw_error *error)
{
    pw_gathered gathered;
    gathered.size = 0;
    *used = 0;
    for (;;) {
        size_t taken;
        pw_span span;
        pw_parse outcome =
            pw_chunked_parse(&content->chunked, data + *used, size - *used, &taken, &span);
        *used += taken;
        if (outcome == PW_PARSE_ERROR) {
            *error = PW_E_CHUNK;
            return PW_PARSE_ERROR;
        }
        int64_t here = content->size + (int64_t)gathered.size, coming = (int64_t)span.size;
        if (content->chunked.state == PW_CHUNKED_DATA)
            coming += content->chunked.left;
        if (store->size_most != 0 && here > store->size_most - coming) {
            *error = PW_E_BODY_SIZE;
            return PW_PARSE_ERROR;
        }
        *error = gather(&gathered, content, store, span);
        if (*error == PW_E_NONE && (outcome == PW_PARSE_DONE || *used == size)) {
            *error = gathered_add(&gathered, content, store);
            if (*error == PW_E_NONE)
                return outcome;
        }
        if (*error != PW_E_NONE)
            return PW_PARSE_ERROR;
    }
}

pw_parse pw_content_take(pw_content *content, pw_store *store, const char *data, size_t size,
                         size_t *used, pw_error *error)
{
    if (content->length < 0)
        return content_take_chunked(content, store, data, size, used, error);
    int64_t left = content->length - content->size;
    *used = (int64_t)size > left ? (size_t)left : size;
    *error = *used > 0 ? pw_content_add(content, store, data, *used) : PW_E_NONE;
    if (*error != PW_E_NONE)
        return PW_PARSE_ERROR;
    return content->size == content->length ? PW_PARSE_DONE : PW_PARSE_MORE;
}
