/* csrc/accept.c with servers that share their sockets: one with more
 * connections leaves new ones to the others. */
#include <stdlib.h>
#include <string.h>

#include "accept.h"
#include "cast.h"
#include "conn_balance.h"
#include "site.h"
#include "timer.h"

enum { CLIENTS = 150, ASIDE_MS = 8, ASIDE_MOST_MS = 128, LOOKS = 8, BATCH = 64 };

static test_site site;
static test_client clients[CLIENTS];
static int connected;
static pw_balance *balance;
static pw_place *other; /* of another server */

static void begin(void)
{
    pw_settings settings = site_settings();
    clock_stop();
    balance = pw_balance_new();
    REQUIRE(balance != NULL);
    other = pw_balance_join(balance);
    settings.balance = balance;
    settings.max_connections = 1000;
    site_open(&site, &settings, AF_UNIX);
    connected = 0;
}

static void end(void)
{
    for (int i = 0; i < connected; i++)
        client_close(&clients[i]);
    site_close(&site);
    pw_balance_leave(other);
    pw_balance_free(balance);
    clock_go();
}

static void connect_more(int count)
{
    for (; count > 0; count--) {
        REQUIRE(connected < CLIENTS);
        clients[connected++] = site_connect(&site);
    }
}

/* The number of its connections after so many ms. */
static int after(int64_t ms)
{
    clock_forward_ms(ms);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(atomic_load(&site.server->accept.place->connections), site.server->conn_count);
    return site.server->conn_count;
}

static void a_server_ahead_takes_one_connection_and_lets_others_accept(void)
{
    begin();
    connect_more(100);
    CHECK_INT(after(0), 1);
    CHECK(site.server->accept.aside);
    CHECK(!site.server->accept.listeners[0].is_polled);
    CHECK_INT(after(ASIDE_MS - 1), 1);
    end();
}

static void when_the_others_take_none_it_takes_twice_as_many_each_time(void)
{
    begin();
    connect_more(128);
    int expected = 1, turn = 1;
    CHECK_INT(after(0), 1);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(after(ASIDE_MS - 1), expected);
        turn = turn < BATCH ? turn * 2 : BATCH;
        expected += turn;
        if (expected > 128)
            expected = 128;
        after(1);
        CHECK_INT(after(0), expected);
    }
    CHECK_INT(expected, 127);
    end();
}

static void when_the_others_have_caught_up_it_takes_one_again(void)
{
    begin();
    connect_more(50);
    CHECK_INT(after(0), 1);
    after(ASIDE_MS);
    CHECK_INT(after(0), 3);
    CHECK_INT(site.server->accept.turn, 2);
    atomic_store(&other->connections, 3);
    CHECK_INT(after(0), 4); /* at once, not only after its time aside */
    CHECK_INT(site.server->accept.turn, 1);
    CHECK(site.server->accept.aside);
    end();
}

static void a_server_that_is_not_ahead_takes_all_that_come(void)
{
    begin();
    atomic_store(&other->connections, 40);
    connect_more(20);
    CHECK_INT(after(0), 20); /* one at a time, but each at once */
    CHECK(!site.server->accept.aside);
    atomic_store(&other->connections, 20);
    connect_more(10);
    CHECK_INT(after(0), 26); /* a quarter more than the other one has, and one */
    CHECK(site.server->accept.aside);
    end();
}

static void a_server_without_requests_listens_again_and_does_not_wake_up(void)
{
    begin();
    connect_more(1);
    CHECK_INT(after(0), 1);
    CHECK(site.server->accept.aside);
    CHECK_INT(after(ASIDE_MS), 1);
    CHECK(!site.server->accept.aside);
    CHECK(site.server->accept.listeners[0].is_polled);
    CHECK_INT(pw_accept_timeout(site.server), -1);
    end();
}

static void wait_ms(int64_t ms)
{
    clock_forward_ms(ms);
    pw_timers_tick(&site.server->timers);
    pw_accept_waited(site.server);
}

static void a_server_with_more_requests_steps_aside_and_looks_less_and_less_often(void)
{
    begin();
    CHECK_INT(after(0), 0);
    pw_server *server = site.server;
    atomic_store(&server->accept.place->requests, 5);
    for (int length = ASIDE_MS; length <= 2 * ASIDE_MOST_MS; length *= 2) {
        int round = length < ASIDE_MOST_MS ? length : ASIDE_MOST_MS;
        CHECK_INT(pw_accept_timeout(server), round / LOOKS);
        CHECK(!server->accept.listeners[0].is_polled);
        wait_ms(round - 1);
        CHECK_INT(pw_accept_timeout(server), round / LOOKS);
        wait_ms(1);
    }
    connect_more(1); /* which the other one does not take */
    wait_ms(ASIDE_MOST_MS);
    CHECK_INT(server->conn_count, 1);
    CHECK_INT(pw_accept_timeout(server), ASIDE_MS / LOOKS);
    atomic_store(&server->accept.place->requests, 1);
    atomic_store(&other->connections, 1);
    CHECK_INT(pw_accept_timeout(server), -1);
    CHECK(server->accept.listeners[0].is_polled);
    end();
}

static void a_server_alone_takes_all(void)
{
    begin();
    pw_balance_forget(balance, atomic_load(&other->process) + 1); /* another process */
    connect_more(5);
    CHECK_INT(after(0), 1);
    pw_balance_leave(other);
    CHECK_INT(after(0), 5);
    other = pw_balance_join(balance);
    end();
}

static void a_server_that_stops_has_no_place(void)
{
    begin();
    connect_more(5);
    CHECK_INT(after(0), 1);
    pw_place *own = site.server->accept.place;
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), PW_STOP); /* then it accepts those that wait */
    CHECK(site.server->accept.place == NULL);
    CHECK_INT(atomic_load(&own->process), 0);
    CHECK(!site.server->accept.aside);
    end();
}

int main(void)
{
    RUN(a_server_ahead_takes_one_connection_and_lets_others_accept);
    RUN(when_the_others_take_none_it_takes_twice_as_many_each_time);
    RUN(when_the_others_have_caught_up_it_takes_one_again);
    RUN(a_server_that_is_not_ahead_takes_all_that_come);
    RUN(a_server_without_requests_listens_again_and_does_not_wake_up);
    RUN(a_server_with_more_requests_steps_aside_and_looks_less_and_less_often);
    RUN(a_server_alone_takes_all);
    RUN(a_server_that_stops_has_no_place);
    return check_end();
}
