/* Health checks, which the core answers: whether the server accepts requests (--health), and whether
 * the process lives (--health-live). */
#include <stdio.h>
#include <string.h>

#include "batch.h"
#include "conn_close.h"
#include "error_response.h"
#include "framing.h"
#include "health.h"
#include "output.h"
#include "state.h"

bool pw_conn_is_health(const pw_server *server, const pw_conn *conn)
{
    const pw_head *head = &server->head;
    return server->has_probes && conn->kind != PW_SAME && /* no request has an empty path */
           (pw_span_is(head->path, server->health) || pw_span_is(head->path, server->live)) &&
           (pw_span_is(head->method, "GET") || pw_span_is(head->method, "HEAD")) &&
           !conn->facts.chunked && conn->facts.content_length <= 0;
}

static size_t answer_health(const pw_clock *clock, char *to, const pw_conn *conn, bool unready)
{
    const char *text = unready ? "draining\n" : "ok\n";
    int size = snprintf(to, PW_REFUSAL_MOST,
                        "HTTP/1.1 %s\r\n"
                        "Content-Type: text/plain; charset=utf-8\r\n"
                        "Cache-Control: no-store\r\n",
                        unready ? "503 Service Unavailable" : "200 OK");
    size_t head = (size_t)size;
    head +=
        pw_framing_tail(clock, to + head, conn, PW_ADD_DATE | PW_ADD_SERVER, (int64_t)strlen(text));
    if (conn->facts.is_head)
        return head;
    memcpy(to + head, text, strlen(text));
    return head + strlen(text);
}

pw_step pw_conn_answer_health(pw_server *server, pw_conn *conn)
{
    char answer[PW_REFUSAL_MOST];
    bool unready = atomic_load(&server->unready) && pw_span_is(server->head.path, server->health);
    if (!conn->facts.keep_alive || atomic_load(&server->closing))
        pw_conn_ends(conn, PW_CONN_CLOSES);
    conn->response = (pw_response){.promised = -1};
    size_t size = answer_health(&server->clock, answer, conn, unready);
    conn->in->start += conn->used;
    conn->used = 0;
    conn->progress = (pw_head_progress){0};
    server->parsed = NULL;
    bool waits = pw_batch_waits(server, conn, size);
    if (!pw_output_copy(&conn->output, answer, size))
        return pw_conn_fail(server, conn);
    conn->state = waits ? PW_CONN_HEAD : PW_CONN_SENDING;
    return PW_STEP_ON;
}
