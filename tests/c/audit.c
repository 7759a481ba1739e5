#include "audit.h"

#include <fcntl.h>
#include <string.h>

#include "check.h"
#include "conn_pool.h"
#include "queue.h"
#include "state.h"

/* ------------------------------------------------------------------ lists */

static bool is_zero(const void *memory, size_t size)
{
    const unsigned char *at = memory;
    for (size_t i = 0; i < size; i++)
        if (at[i] != 0)
            return false;
    return true;
}

static bool is_listed(const pw_server *server, const pw_conn *wanted)
{
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next)
        if (conn == wanted)
            return true;
    return false;
}

static int count_in(const pw_conn *first, const pw_conn *wanted)
{
    int count = 0;
    for (const pw_conn *conn = first; conn != NULL; conn = conn->run_next)
        count += conn == wanted;
    return count;
}

static void audit_queue(const pw_server *server, const pw_queue *queue)
{
    const pw_conn *last = NULL;
    for (const pw_conn *conn = queue->first; conn != NULL; conn = conn->run_next) {
        REQUIRE(conn->queued);
        REQUIRE(conn->state == PW_CONN_CLOSED || is_listed(server, conn));
        last = conn;
    }
    REQUIRE(queue->last == last);
}

static void audit_queues(const pw_server *server)
{
    const pw_queue *const queues[] = {&server->run, &server->again, &server->spent, &server->ready};
    for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++)
        audit_queue(server, queues[i]);
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next) {
        int count = 0;
        for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++)
            count += count_in(queues[i]->first, conn);
        REQUIRE(count == conn->queued);
        REQUIRE(conn->state != PW_CONN_READY || count_in(server->ready.first, conn) == 1);
        REQUIRE(count_in(server->dead, conn) == 0);
    }
    int32_t ready = 0;
    for (const pw_conn *conn = server->ready.first; conn != NULL; conn = conn->run_next, ready++)
        REQUIRE(conn->state == PW_CONN_READY || conn->state == PW_CONN_CLOSED);
    REQUIRE(ready == server->ready_count);
    int spare = 0;
    for (const pw_conn *conn = server->spare; conn != NULL; conn = conn->run_next)
        spare++;
    REQUIRE(spare == server->spare_count && spare <= PW_SPARE_MOST);
    for (const pw_conn *conn = server->dead; conn != NULL; conn = conn->run_next)
        REQUIRE(conn->state == PW_CONN_CLOSED && !conn->queued);
}

static void audit_list(const pw_server *server)
{
    int32_t count = 0, idle = 0;
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next) {
        REQUIRE(conn->state != PW_CONN_CLOSED);
        REQUIRE(conn->previous == NULL ? conn == server->all : conn->previous->next == conn);
        REQUIRE(fcntl(conn->fd, F_GETFD) >= 0);
        REQUIRE(conn->listener < server->accept.listener_count && conn->id < server->next_id);
        count++;
        idle += conn->state == PW_CONN_IDLE;
    }
    REQUIRE(count == server->conn_count && idle == server->idle_count);
    if (server->accept.place != NULL)
        REQUIRE(atomic_load(&server->accept.place->connections) == count);
}

/* ------------------------------------------------------------------ timers */

static void audit_timers(const pw_server *server)
{
    int running = 0, in_rings = 0;
    for (int kind = 0; kind < PW_TIMER_KINDS; kind++) {
        const pw_timer *ring = &server->timers.rings[kind];
        int64_t due = INT64_MIN;
        for (const pw_timer *timer = ring->next; timer != ring; timer = timer->next) {
            REQUIRE(timer->next->previous == timer && timer->previous->next == timer);
            REQUIRE((int)timer->kind == kind && timer->due >= due);
            REQUIRE(timer->due <= server->timers.now + server->timers.length[kind]);
            REQUIRE(is_listed(server, pw_conn_of((pw_timer *)(uintptr_t)timer)));
            due = timer->due;
            in_rings++;
        }
    }
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next)
        running += conn->timer.kind != PW_TIMER_NONE;
    REQUIRE(running == in_rings);
}

/* ------------------------------------------------------------------ memory */

static void audit_memory(const pw_server *server)
{
    size_t buffers = 0;
    int64_t contents = 0;
    unsigned pooled = 0;
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next) {
        if (conn->in != NULL) {
            REQUIRE(conn->in->start <= conn->in->end && conn->in->end <= conn->in->size);
            REQUIRE(conn->used <= conn->in->end - conn->in->start);
            buffers += conn->in->size;
        }
        if (conn->content != NULL) {
            const pw_content *content = conn->content;
            REQUIRE((content->memory == NULL) == (content->room == 0));
            REQUIRE(content->room == 0 || content->size <= (int64_t)content->room);
            REQUIRE(content->length < 0 || content->size <= content->length);
            contents += (int64_t)content->room;
        }
    }
    REQUIRE(buffers == server->pool.held);
    REQUIRE(contents == server->store.held);
    REQUIRE(contents <= server->store.memory_total || contents == 0);
    for (const pw_buffer *buffer = server->pool.first; buffer != NULL; buffer = buffer->next) {
        REQUIRE(buffer->size == PW_BUFFER_SIZE);
        pooled++;
    }
    REQUIRE(pooled == server->pool.count && pooled <= PW_POOL_MOST);
}

static bool entry_is_right(const pw_server *server, int number)
{
    static const pw_entry free_entry;
    const pw_entry *entry = &server->cache.entries[number];
    const pw_conn *owner = entry->owner;
    if (owner == NULL)
        return memcmp(entry, &free_entry, sizeof *entry) == 0;
    return is_listed(server, owner) && owner->entry == number &&
           entry->busy == (owner->state == PW_CONN_APP) && entry->used <= server->timers.now &&
           (entry->head == NULL || entry->facts.size > 0);
}

static void audit_cache(const pw_server *server)
{
    REQUIRE(server->cache.hand < PW_CACHE_SIZE);
    bool right = true;
    for (int i = 0; i < PW_CACHE_SIZE; i++)
        right &= entry_is_right(server, i);
    REQUIRE(right);
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next)
        REQUIRE(conn->entry < 0 || server->cache.entries[conn->entry].owner == conn);
    REQUIRE(server->parsed == NULL ||
            (is_listed(server, server->parsed) && server->parsed->in != NULL));
}

/* ------------------------------------------------------------------ threads */

static void audit_threads(const pw_server *server)
{
    int32_t count = 0, taken = 0, arrived = 0, held = 0, at_work = 0, in_app = 0, gathering = 0;
    int32_t detached = 0;
    bool known = server->token.holder == NULL;
    for (const pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next) {
        REQUIRE(thread->previous == NULL ? thread == server->threads.first
                                         : thread->previous->next == thread);
        count++;
        taken += thread->taken;
        arrived += thread->has_arrived;
        held += thread->held;
        known |= thread == server->token.holder;
        if (thread->conn != NULL) {
            REQUIRE(is_listed(server, thread->conn) && thread->conn->state == PW_CONN_APP);
            REQUIRE(thread->taken);
            at_work++;
        }
        const pw_conn *own = thread->detached.conn;
        if (own != NULL) {
            REQUIRE(!is_listed(server, own) && own->state == PW_CONN_APP && !own->queued);
            REQUIRE(own->in == NULL && own->output.first == NULL && !own->registered);
            REQUIRE(own->timer.kind == PW_TIMER_NONE && own->entry < 0 && own->loan == 0);
            detached++;
        }
    }
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next) {
        in_app += conn->state == PW_CONN_APP;
        gathering += (conn->response.state == PW_RESPONSE_BATCHED);
        REQUIRE(conn->response.state != PW_RESPONSE_BATCHED || conn->state == PW_CONN_APP);
    }
    REQUIRE(known && at_work == in_app && detached == server->threads.detached);
    REQUIRE(taken == server->threads.taken && held == server->threads.held);
    REQUIRE(arrived == server->threads.arrived && gathering == server->batch.count);
    REQUIRE(server->references == count + 1);
    REQUIRE(server->news_count <= server->news_room);
    REQUIRE(server->incidents.first <= server->incidents.count);
    REQUIRE(server->incidents.count <= server->incidents.room);
}

void audit(const pw_server *server)
{
    audit_list(server);
    audit_queues(server);
    audit_timers(server);
    audit_memory(server);
    audit_cache(server);
    audit_threads(server);
}

/* ------------------------------------------------------------------ while the loop waits */

static void audit_output(const pw_conn *conn)
{
    const pw_output *output = &conn->output;
    const pw_piece *last = NULL;
    int64_t size = 0, unsent_spool = 0;
    int32_t borrowed = 0;
    for (const pw_piece *piece = output->first; piece != NULL; piece = piece->next) {
        REQUIRE(piece->left > 0);
        REQUIRE(piece->file >= 0 || piece->borrowed ||
                (piece->at >= piece->own && piece->at + piece->left <= piece->own + piece->room));
        size += (int64_t)piece->left;
        borrowed += piece->borrowed;
        unsent_spool += piece->spooled ? (int64_t)piece->left : 0;
        last = piece;
    }
    REQUIRE(output->last == last && output->size == size && output->borrowed == borrowed);
    REQUIRE(output->unsent_spool == unsent_spool && unsent_spool <= output->spool_size);
    REQUIRE(output->store != NULL || output->spool_size == 0);
    REQUIRE(borrowed == 0 || conn->loan != 0 || conn->state == PW_CONN_APP);
    REQUIRE(conn->loan == 0 || output->first != NULL);
}

/* The timer that runs while a connection waits. PW_TIMER_NONE: any timer, or none. */
static pw_timer_kind timer_of(const pw_server *server, const pw_conn *conn)
{
    switch (conn->state) {
    case PW_CONN_IDLE:
        return server->draining ? PW_TIMER_DRAIN : PW_TIMER_KEEP_ALIVE;
    case PW_CONN_PROXY:
        return server->draining && conn->in == NULL ? PW_TIMER_DRAIN : PW_TIMER_HEAD;
    case PW_CONN_HEAD:
        return PW_TIMER_HEAD;
    case PW_CONN_CONTENT:
        return PW_TIMER_BODY;
    case PW_CONN_SENDING:
        return PW_TIMER_WRITE;
    case PW_CONN_LINGER:
        return pw_conn_resets(conn) ? PW_TIMER_RESET
               : server->draining   ? PW_TIMER_DRAIN
                                    : PW_TIMER_LINGER;
    case PW_CONN_READY:
        return server->queue_ends ? PW_TIMER_QUEUE : PW_TIMER_NONE;
    case PW_CONN_APP:
    case PW_CONN_CLOSED:
        return PW_TIMER_NONE;
    }
    return PW_TIMER_NONE;
}

static void audit_waiting(const pw_server *server, const pw_conn *conn)
{
    bool waits = conn->state != PW_CONN_APP && conn->state != PW_CONN_READY;
    bool has_content = conn->state == PW_CONN_CONTENT || conn->state == PW_CONN_READY ||
                       conn->state == PW_CONN_APP;
    bool has_head = conn->state == PW_CONN_HEAD || conn->state == PW_CONN_CONTENT ||
                    conn->state == PW_CONN_READY;
    pw_timer_kind kind = timer_of(server, conn);
    REQUIRE(conn->queued == (conn->state == PW_CONN_READY));
    REQUIRE(!waits || conn->registered);
    REQUIRE(kind == PW_TIMER_NONE || conn->timer.kind == kind);
    REQUIRE(has_content || conn->content == NULL);
    REQUIRE(conn->state != PW_CONN_CONTENT || conn->content != NULL);
    REQUIRE(!has_head || (conn->in != NULL && conn->in->end > conn->in->start));
    REQUIRE(has_head || conn->used == 0);
    REQUIRE(has_head || is_zero(&conn->progress, sizeof conn->progress));
    REQUIRE(conn->state != PW_CONN_IDLE || (conn->in == NULL && conn->output.first == NULL));
    REQUIRE(conn->state != PW_CONN_LINGER || (conn->in == NULL && conn->output.first == NULL));
    REQUIRE(conn->state != PW_CONN_SENDING || conn->output.first != NULL);
    REQUIRE(conn->proxied == NULL || conn->state != PW_CONN_PROXY);
    REQUIRE(conn->kept == NULL || conn->state == PW_CONN_SENDING);
    REQUIRE(conn->loan == 0 || conn->state == PW_CONN_SENDING);
    REQUIRE(conn->slice_requests <= PW_SLICE_REQUESTS);
    if (waits && conn->state != PW_CONN_SENDING && conn->state != PW_CONN_LINGER)
        REQUIRE((conn->what & PW_READABLE) == 0); /* or the loop would have handled it */
}

void audit_at_rest(const pw_server *server)
{
    int64_t spooled = 0;
    audit(server);
    REQUIRE(server->run.first == NULL && server->again.first == NULL);
    REQUIRE(server->spent.first == NULL && server->dead == NULL);
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next) {
        audit_output(conn);
        audit_waiting(server, conn);
        spooled += conn->output.spool_size;
    }
    REQUIRE(spooled == atomic_load(&server->store.spooled));
    for (int kind = 0; kind < PW_TIMER_KINDS; kind++) {
        const pw_timer *first = server->timers.rings[kind].next;
        REQUIRE(first == &server->timers.rings[kind] || first->due > server->timers.polled);
    }
    for (int i = 0; i < server->accept.listener_count; i++) {
        const pw_listener *listener = &server->accept.listeners[i];
        REQUIRE(!listener->is_polled || listener->fd >= 0);
        REQUIRE(listener->is_polled == (listener->fd >= 0 && !listener->is_over &&
                                        !server->accept.paused && !server->accept.aside) ||
                server->draining);
    }
    REQUIRE(!server->draining || !server->accept.aside || server->accept.place != NULL);
}
