/* Transfer of connections between processes that replace each other. Each connection comes with the
 * number of its listener, and with the addresses in its PROXY header. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conn_transfer.h"
#include "system.h"

/*
 * A message is one byte: the number of the listener, and these two bits. With PW_PROXIED the
 * addresses follow. One descriptor is attached to it, and so no call receives a part of the next
 * message (unix(7)).
 */
enum { PW_LISTENER_BITS = 63, PW_AWAITS_PROXY = 64, PW_PROXIED = 128 };
_Static_assert(PW_LISTENERS_MOST <= PW_LISTENER_BITS + 1, "a number has six bits");

typedef struct {
    struct iovec parts[2];
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } beside;
    struct msghdr header;
} pw_message;

static void message_init(pw_message *message, uint8_t *first, pw_proxied *proxied)
{
    memset(message, 0, sizeof *message);
    message->parts[0] = (struct iovec){first, sizeof *first};
    message->parts[1] = (struct iovec){proxied, sizeof *proxied};
    message->header.msg_iov = message->parts;
    message->header.msg_iovlen = proxied != NULL ? 2 : 1;
    message->header.msg_control = &message->beside;
    message->header.msg_controllen = sizeof message->beside;
}

bool pw_transfer_is_open(const pw_server *server)
{
    struct pollfd channel = {.fd = server->transfer};
    return server->transfer >= 0 && poll(&channel, 1, 0) == 0;
}

bool pw_transfer_send(const pw_server *server, const pw_conn *conn)
{
    if (server->transfer < 0)
        return false;
    uint8_t first = conn->listener;
    ssize_t size = 1;
    if (conn->state == PW_CONN_PROXY)
        first |= PW_AWAITS_PROXY;
    if (conn->proxied != NULL) {
        first |= PW_PROXIED;
        size += (ssize_t)sizeof *conn->proxied;
    }
    pw_message message;
    message_init(&message, &first, conn->proxied);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message.header);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof conn->fd);
    memcpy(CMSG_DATA(header), &conn->fd, sizeof conn->fd);
    /* The system takes a small message as a whole, or not at all. */
    return pw_send_message(server->transfer, &message.header, MSG_DONTWAIT) == size;
}

/* Reads the first byte. False: the message is not complete. */
static bool transferred_read(pw_transferred *to, ssize_t got)
{
    to->awaits_proxy = (to->listener & PW_AWAITS_PROXY) != 0;
    to->is_proxied = (to->listener & PW_PROXIED) != 0;
    to->listener &= PW_LISTENER_BITS;
    return !to->is_proxied || got == 1 + (ssize_t)sizeof to->proxied;
}

int pw_transfer_receive(int channel, struct sockaddr_storage *peer, pw_transferred *to, int count)
{
    pw_message message;
    message_init(&message, &to->listener, &to->proxied);
    ssize_t got = pw_receive_message(channel, &message.header, MSG_DONTWAIT);
    if (got <= 0) {
        errno = got == 0 ? 0 : errno;
        return -1;
    }
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message.header);
    int fd = -1;
    if (header != NULL && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof fd))
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    socklen_t size = sizeof *peer;
    peer->ss_family = AF_UNSPEC;
    if (fd < 0) {
        errno = EMFILE; /* this process has no free descriptor, so the connection is lost */
        return -1;
    }
    if (transferred_read(to, got) && to->listener < count &&
        getpeername(fd, (struct sockaddr *)peer, &size) == 0)
        return fd;
    pw_end_connection(fd, peer->ss_family, PW_ENDING_ORDERLY); /* the client has disconnected */
    errno = ECONNABORTED;
    return -1;
}
