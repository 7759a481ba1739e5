/* Making and freeing a serving thread. */
#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "environ.h"
#include "exchange.h"
#include "thread.h"
#include "token.h"

pw_thread *pw_thread_new(pw_server *server, int32_t number)
{
    pw_thread *thread = pw_alloc(sizeof *thread);
    if (thread != NULL) {
        thread->server = server;
        thread->timeout_ms = -1;
        pthread_cond_init(&thread->wake, NULL);
        pthread_cond_init(&thread->turn, NULL);
        thread->block.at = pw_realloc(NULL, pw_block_most(&server->limits));
        if (server->root != NULL) /* the watcher has no block */
            thread->block.root = (pw_span){server->root, strlen(server->root)};
        thread->number = number;
        if (thread->block.at != NULL) {
            pthread_mutex_lock(&server->lock);
            thread->next = server->threads.first;
            if (thread->next != NULL)
                thread->next->previous = thread;
            server->threads.first = thread;
            server->references++;
            pthread_mutex_unlock(&server->lock);
            return thread;
        }
        pthread_cond_destroy(&thread->turn);
        pthread_cond_destroy(&thread->wake);
    }
    pw_free(thread);
    errno = ENOMEM;
    return NULL;
}

static void server_destroy(pw_server *server)
{
    pthread_cond_destroy(&server->watch.wake);
    pthread_mutex_destroy(&server->lock);
    pw_free(server);
}

void pw_server_release(pw_server *server)
{
    pthread_mutex_lock(&server->lock);
    bool last = --server->references == 0;
    pthread_mutex_unlock(&server->lock);
    if (last)
        server_destroy(server);
}

void pw_thread_free(pw_thread *thread)
{
    if (thread == NULL)
        return;
    pw_server *server = thread->server;
    if (server->forked)
        return; /* the parent frees the memory */
    pthread_mutex_lock(&server->lock);
    pw_exchange_abandon(thread);
    pw_token_drop(thread);
    if (thread->next != NULL)
        thread->next->previous = thread->previous;
    if (thread->previous != NULL)
        thread->previous->next = thread->next;
    else
        server->threads.first = thread->next;
    bool last = --server->references == 0;
    pthread_mutex_unlock(&server->lock);
    pw_free(thread->log.at);
    pthread_cond_destroy(&thread->turn);
    pthread_cond_destroy(&thread->wake);
    pw_free(thread->block.at);
    pw_free(thread);
    if (last)
        server_destroy(server);
}

const char *pw_thread_block(pw_thread *thread)
{
    return thread->block.at;
}

int64_t pw_thread_block_size(pw_thread *thread)
{
    return (int64_t)pw_block_most(&thread->server->limits);
}

pw_request *pw_thread_request(pw_thread *thread)
{
    return &thread->request;
}
