/*
 * The core of picowsgi without Python: answers every request with the same bytes that the
 * application `hello` and the server give. What Python adds is the difference to picowsgi.
 * Called as: core_alone PORT
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api.h"

#define LITERAL(text) (text), (int64_t)(sizeof(text) - 1)

static pw_server *server;

static void stop(int signal)
{
    (void)signal;
    pw_server_stop(server, PW_DRAIN);
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(listener, (const struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 1024) != 0) {
        perror("core_alone");
        exit(1);
    }
    return listener;
}

int main(int count, char **words)
{
    int port = count == 2 ? atoi(words[1]) : 0;
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: core_alone PORT\n");
        return 2;
    }
    /* As picowsgi's own defaults, but for the connections (bench/servers.py). */
    server = pw_server_new(&(pw_settings){
        .max_head_size = 65536,
        .head_memory_total = 32 << 20,
        .max_body_size = 1 << 30,
        .body_memory = 1 << 20,
        .body_memory_total = 64 << 20,
        .response_buffer = 1 << 20,
        .max_fields = 100,
        .max_connections = 16384,
        .threads = 1,
        .timeout_head = 10000,
        .timeout_body = 30000,
        .timeout_write = 30000,
        .timeout_keep_alive = 60000,
        .timeout_drain = 250,
        .timeout_graceful = 30000,
        .access_file = -1,
        .access_program = "",
        .health_path = "",
        .live_path = "",
        .root_path = "",
        .temporary_directory = "/tmp",
    });
    if (server == NULL || pw_server_listen(server, listen_on((uint16_t)port)) != 0) {
        perror("core_alone");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    pw_thread *thread = pw_thread_new(server, 0);
    if (thread == NULL) {
        perror("core_alone");
        return 1;
    }
    for (int64_t number = pw_next(thread); number != PW_STOP;) {
        if (number == PW_IDLE) {
            while (pw_news(thread) >= 0)
                pw_news_done(thread); /* what is sent is a constant: nothing was kept */
            number = pw_next(thread);
            continue;
        }
        number = pw_respond(
            thread,
            LITERAL("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n"),
            LITERAL("Hello, world!\n"), PW_ADD_DATE | PW_ADD_SERVER | PW_HAS_LENGTH | PW_FINISHED);
    }
    pw_thread_free(thread);
    pw_server_free(server);
    return 0;
}
