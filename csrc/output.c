/* Output of a connection: sent at once, and only what the socket does not take is kept. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "output.h"
#include "store.h"
#include "system.h"

#define PW_PARTS_MOST 64
#define PW_FEW_BYTES 1024
#define PW_FILE_STEP ((size_t)1 << 20)
#define PW_STEPS_MOST 4 /* one fast reader must not occupy the loop */

static pw_piece *piece_new(pw_output *output, size_t room)
{
    pw_piece *piece = pw_realloc(NULL, sizeof *piece + room);
    if (piece == NULL)
        return NULL;
    memset(piece, 0, sizeof *piece);
    piece->file = -1;
    piece->room = room;
    if (output->last != NULL)
        output->last->next = piece;
    else
        output->first = piece;
    output->last = piece;
    return piece;
}

bool pw_output_copy(pw_output *output, const char *data, size_t size)
{
    pw_piece *last = output->last;
    if (last != NULL && last->file < 0 && !last->borrowed) {
        size_t end = (size_t)(last->at + last->left - last->own);
        if (last->room - end >= size) {
            memcpy(last->own + end, data, size);
            last->left += size;
            output->size += (int64_t)size;
            return true;
        }
    }
    pw_piece *piece = piece_new(output, size > 2048 ? size : 2048);
    if (piece == NULL)
        return false;
    memcpy(piece->own, data, size);
    piece->at = piece->own;
    piece->left = size;
    output->size += (int64_t)size;
    return true;
}

bool pw_output_borrow(pw_output *output, const char *data, size_t size)
{
    pw_piece *piece = piece_new(output, 0);
    if (piece == NULL)
        return false;
    piece->at = data;
    piece->left = size;
    piece->borrowed = true;
    output->size += (int64_t)size;
    output->borrowed++;
    return true;
}

bool pw_output_file(pw_output *output, int fd, off_t offset, size_t size)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return false;
    pw_piece *piece = piece_new(output, 0);
    if (piece == NULL) {
        close(own);
        return false;
    }
    piece->file = own;
    piece->offset = offset;
    piece->left = size;
    output->size += (int64_t)size;
    return true;
}

/* Frees the disk, because all of the spool is sent. */
static void output_empty_spool(pw_output *output)
{
    if (ftruncate(output->spool, 0) != 0)
        return; /* then the file continues to grow */
    atomic_fetch_sub(&output->store->spooled, output->spool_size);
    output->spool_size = 0;
}

void pw_output_close_spool(pw_output *output)
{
    if (output->store == NULL)
        return;
    close(output->spool);
    atomic_fetch_sub(&output->store->spooled, output->spool_size);
    output->spool_size = output->unsent_spool = 0;
    output->store = NULL;
}

static bool output_open_spool(pw_output *output, pw_store *store)
{
    if (output->store != NULL)
        return true;
    output->spool = pw_temporary_file(store->directory);
    if (output->spool >= 0)
        output->store = store;
    return output->spool >= 0;
}

bool pw_output_spool(pw_output *output, pw_store *store, const struct iovec *parts, int count)
{
    struct iovec left[PW_SPOOL_PARTS];
    int64_t more = 0;
    for (int i = 0; i < count; i++) {
        left[i] = parts[i];
        more += (int64_t)parts[i].iov_len;
    }
    if (more > store->spool_most - output->spool_size)
        return false;
    if (atomic_fetch_add(&store->spooled, more) > store->spool_total - more ||
        !output_open_spool(output, store))
        goto no_room;
    if (!pw_write_parts(output->spool, left, count, (off_t)output->spool_size))
        goto no_room; /* the next call writes over what has reached the file */
    pw_piece *last = output->last;
    if (last == NULL || !last->spooled) {
        last = piece_new(output, 0); /* only now, because an empty piece could not be sent */
        if (last == NULL)
            goto no_room;
        last->file = output->spool;
        last->spooled = true;
        last->offset = (off_t)output->spool_size;
    }
    last->left += (size_t)more;
    output->size += more;
    output->spool_size += more;
    output->unsent_spool += more;
    return true;
no_room:
    atomic_fetch_sub(&store->spooled, more);
    return false;
}

static void output_drop_first(pw_output *output)
{
    pw_piece *piece = output->first;
    output->first = piece->next;
    if (output->first == NULL)
        output->last = NULL;
    output->size -= (int64_t)piece->left;
    output->borrowed -= piece->borrowed;
    if (piece->spooled) {
        output->unsent_spool -= (int64_t)piece->left;
        if (output->unsent_spool == 0)
            output_empty_spool(output);
    } else if (piece->file >= 0) {
        close(piece->file);
    }
    pw_free(piece);
}

void pw_output_free(pw_output *output)
{
    while (output->first != NULL)
        output_drop_first(output);
    pw_output_close_spool(output);
}

bool pw_output_own(pw_output *output)
{
    for (pw_piece **at = &output->first; output->borrowed > 0 && *at != NULL; at = &(*at)->next) {
        pw_piece *piece = *at;
        if (!piece->borrowed)
            continue;
        pw_piece *own = pw_realloc(NULL, sizeof *own + piece->left);
        if (own == NULL)
            return false;
        *own = (pw_piece){.next = piece->next, .left = piece->left, .file = -1};
        own->room = piece->left;
        own->at = memcpy(own->own, piece->at, piece->left);
        *at = own;
        if (output->last == piece)
            output->last = own;
        output->borrowed--;
        pw_free(piece);
    }
    return true;
}

static pw_io io_failure(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? PW_IO_RETRY : PW_IO_ERROR;
}

/* The kernel copies a few bytes faster than it reads a list of parts: 2 % of a small response. */
static ssize_t send_parts(int fd, struct iovec *parts, int count)
{
    if (count == 1)
        return pw_send_bytes(fd, parts->iov_base, parts->iov_len);
    char copy[PW_FEW_BYTES];
    size_t size = 0;
    int at = 0;
    for (; at < count && parts[at].iov_len <= sizeof copy - size; at++) {
        if (parts[at].iov_len > 0)
            memcpy(copy + size, parts[at].iov_base, parts[at].iov_len);
        size += parts[at].iov_len;
    }
    if (at == count)
        return pw_send_bytes(fd, copy, size);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    return pw_send_message(fd, &message, 0);
}

/* Sends the pieces before the first file. */
static pw_io flush_bytes(pw_output *output, int fd, bool *progress)
{
    struct iovec parts[PW_PARTS_MOST];
    int count = 0;
    size_t want = 0;
    for (pw_piece *piece = output->first; piece != NULL && piece->file < 0 && count < PW_PARTS_MOST;
         piece = piece->next) {
        parts[count++] = (struct iovec){(void *)(uintptr_t)piece->at, piece->left};
        want += piece->left;
    }
    ssize_t done = send_parts(fd, parts, count);
    if (done < 0)
        return io_failure();
    *progress |= done > 0;
    output->sent += done;
    size_t left = (size_t)done;
    bool whole = left == want;
    while (count-- > 0 && output->first->left <= left) {
        left -= output->first->left;
        output->size -= (int64_t)output->first->left;
        output->first->left = 0;
        output_drop_first(output);
    }
    if (left > 0) {
        output->first->at += left;
        output->first->left -= left;
        output->size -= (int64_t)left;
    }
    return whole ? PW_IO_OK : PW_IO_RETRY;
}

static pw_io flush_file(pw_output *output, int fd, bool *progress)
{
    pw_piece *piece = output->first;
    size_t want = piece->left < PW_FILE_STEP ? piece->left : PW_FILE_STEP;
    ssize_t done = pw_send_file_part(fd, piece->file, &piece->offset, want);
    if (done < 0)
        return io_failure();
    if (done == 0) {
        errno = ENODATA; /* the file has become shorter than was promised */
        return PW_IO_ERROR;
    }
    *progress = true;
    output->sent += done;
    piece->left -= (size_t)done;
    output->size -= (int64_t)done;
    if (piece->spooled)
        output->unsent_spool -= (int64_t)done;
    if (piece->left == 0)
        output_drop_first(output);
    return PW_IO_OK;
}

pw_io pw_output_flush(pw_output *output, int fd, bool *progress)
{
    for (int step = 0; step < PW_STEPS_MOST && output->first != NULL; step++) {
        pw_io outcome = output->first->file >= 0 ? flush_file(output, fd, progress)
                                                 : flush_bytes(output, fd, progress);
        if (outcome != PW_IO_OK)
            return outcome;
    }
    return PW_IO_OK;
}

pw_io pw_output_try(pw_output *output, int fd, struct iovec **parts, int *count)
{
    if (output->first != NULL)
        return PW_IO_RETRY;
    ssize_t done = send_parts(fd, *parts, *count);
    if (done < 0 && io_failure() == PW_IO_ERROR)
        return PW_IO_ERROR;
    size_t left = done < 0 ? 0 : (size_t)done;
    output->sent += (int64_t)left;
    while (*count > 0 && (*parts)->iov_len <= left) {
        left -= (*parts)->iov_len;
        (*parts)++;
        (*count)--;
    }
    if (*count == 0)
        return PW_IO_OK;
    (*parts)->iov_base = (char *)(*parts)->iov_base + left;
    (*parts)->iov_len -= left;
    return PW_IO_RETRY;
}

bool pw_output_keep(pw_output *output, const struct iovec *parts, int count)
{
    for (int i = 0; i < count; i++) {
        const struct iovec *part = &parts[i];
        if (part->iov_len > 0 &&
            !(part->iov_len > PW_COPY_MOST ? pw_output_borrow(output, part->iov_base, part->iov_len)
                                           : pw_output_copy(output, part->iov_base, part->iov_len)))
            return false;
    }
    return true;
}

pw_io pw_output_write(pw_output *output, int fd, struct iovec *parts, int count)
{
    bool waits = output->first != NULL; /* then nothing is sent now */
    pw_io outcome = pw_output_try(output, fd, &parts, &count);
    if (outcome != PW_IO_RETRY)
        return outcome;
    if (!pw_output_keep(output, parts, count))
        return PW_IO_ERROR;
    bool progress = false;
    return waits ? pw_output_flush(output, fd, &progress) : PW_IO_RETRY;
}
