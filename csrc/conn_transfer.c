/* Transfer of connections between processes that replace each other. Each connection comes with the
 * number of its listener. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conn_transfer.h"
#include "system.h"

/* A message is the number of the listener. One descriptor is attached to it (unix(7)). */
typedef struct {
    struct iovec data;
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } beside;
    struct msghdr header;
} pw_message;

static void message_init(pw_message *message, uint8_t *number)
{
    memset(message, 0, sizeof *message);
    message->data = (struct iovec){number, sizeof *number};
    message->header.msg_iov = &message->data;
    message->header.msg_iovlen = 1;
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
    uint8_t number = conn->listener;
    pw_message message;
    message_init(&message, &number);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message.header);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof conn->fd);
    memcpy(CMSG_DATA(header), &conn->fd, sizeof conn->fd);
    return pw_send_message(server->transfer, &message.header, MSG_DONTWAIT) == 1;
}

int pw_transfer_receive(int channel, struct sockaddr_storage *peer, uint8_t *number, int count)
{
    pw_message message;
    message_init(&message, number);
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
    if (*number < count && getpeername(fd, (struct sockaddr *)peer, &size) == 0)
        return fd;
    pw_end_connection(fd, peer->ss_family, PW_ENDING_ORDERLY); /* the client has disconnected */
    errno = ECONNABORTED;
    return -1;
}
