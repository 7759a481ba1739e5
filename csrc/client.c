/*
 * The client that has sent a request. A request comes from the peer of the socket, unless a PROXY
 * header names another sender. And a trusted sender may forward the request of its own client
 * (forwarded.c).
 */
#include <arpa/inet.h>

#include "address.h"
#include "client.h"
#include "head.h"
#include "text.h"

void pw_peer_name(const pw_conn *conn, pw_peer *peer)
{
    peer->address[0] = '\0';
    peer->port[0] = '\0';
    uint16_t port = 0;
    if (conn->peer.any.sa_family == AF_INET) {
        pw_address_write(peer->address, (const uint8_t *)&conn->peer.v4.sin_addr, false);
        port = ntohs(conn->peer.v4.sin_port);
    } else if (conn->peer.any.sa_family == AF_INET6) {
        pw_address_write(peer->address, (const uint8_t *)&conn->peer.v6.sin6_addr, true);
        port = ntohs(conn->peer.v6.sin6_port);
    } else {
        return;
    }
    peer->port[pw_digits(peer->port, port)] = '\0';
}

void pw_parse_again(pw_server *server, const pw_conn *conn)
{
    pw_head_progress progress = {0};
    pw_error error;
    pw_head_parse(pw_limits_of(server, conn), conn->in->data + conn->in->start, conn->facts.size,
                  &progress, &server->head, &error);
    if (server->head.facts.forwarded)
        pw_forwarded_read(&server->trust, &server->head, &server->forwarded);
}

const pw_peer *pw_thread_client(const pw_thread *thread, const pw_conn *conn)
{
    /* The head, or its forwarded fields, are those of the entry: nothing was parsed for the thread. */
    if (conn->kind == PW_SAME || (conn->kind == PW_CHANGED && !conn->facts.forwarded))
        return conn->entry >= 0 ? thread->server->cache.entries[conn->entry].client : NULL;
    return conn->facts.forwarded && thread->has_client ? &thread->client : NULL;
}

const pw_peer *pw_waiting_client(pw_server *server, const pw_conn *conn)
{
    pw_parse_again(server, conn);
    server->parsed = NULL;
    return pw_client_of(pw_forwarded_of(server), NULL);
}
