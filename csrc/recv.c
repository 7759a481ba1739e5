/* Receiving. A read that does not fill the buffer has emptied the socket:
 * the poller will report the next edge. */
#include <errno.h>
#include <unistd.h>

#include "buffer.h"
#include "recv.h"

pw_io pw_recv_into(pw_conn *conn, char *to, size_t room, size_t *got)
{
    ssize_t size;
    do
        size = recv(conn->fd, to, room, 0);
    while (size < 0 && errno == EINTR);
    *got = 0;
    if (size > 0) {
        *got = (size_t)size;
        conn->slice_bytes += size;
        conn->received += size;
        /* After a half-close the end is still to be read, and no edge will report it. */
        if (*got < room && (conn->what & PW_HALF_CLOSED) == 0)
            conn->what &= ~PW_READABLE;
        return PW_IO_OK;
    }
    if (size == 0)
        return PW_IO_END;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        conn->what &= ~PW_READABLE;
        return PW_IO_RETRY;
    }
    return PW_IO_ERROR;
}

pw_io pw_recv(pw_server *server, pw_conn *conn)
{
    if (conn->in == NULL) {
        conn->in = pw_buffer_get(&server->pool);
        if (conn->in == NULL)
            return PW_IO_ERROR;
    } else {
        size_t least = (conn->in->size < PW_BUFFER_SIZE ? conn->in->size : PW_BUFFER_SIZE) / 4;
        if (conn->in->size - conn->in->end < least &&
            !pw_buffer_room(&server->pool, &conn->in, 2 * least))
            return PW_IO_ERROR;
    }
    size_t got;
    pw_io outcome =
        pw_recv_into(conn, conn->in->data + conn->in->end, conn->in->size - conn->in->end, &got);
    conn->in->end += got;
    return outcome;
}
