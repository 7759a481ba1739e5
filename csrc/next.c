/* Taking the next request, for a thread that comes from Python. */

#include "exchange.h"
#include "loop.h"
#include "token.h"

int64_t pw_next(pw_thread *thread)
{
    return pw_next_within(thread, -1);
}

int64_t pw_next_within(pw_thread *thread, int32_t timeout_ms)
{
    pw_server *server = thread->server;
    pw_token_back(thread);
    pthread_mutex_lock(&server->lock);
    pw_exchange_abandon(thread);
    thread->timeout_ms = timeout_ms;
    int64_t number = pw_loop_serve(thread);
    thread->timeout_ms = -1;
    pthread_mutex_unlock(&server->lock);
    pw_token_leave(thread, number);
    return number;
}

int64_t pw_finish(pw_thread *thread, int32_t cut)
{
    bool lends = thread->request.lends != 0;
    pw_send_end(thread, cut);
    return lends ? PW_IDLE : pw_next(thread);
}
