/* csrc/token.c and csrc/watcher.c: several threads and the
 * watcher, in every order that a test needs. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "audit.h"
#include "stage.h"
#include "system.h"
#include "token.h"
#include "yield_rule.h"

enum { THREADS = 3, LOOK_MS = 100 };

static pw_settings settings;

static void begin_with(int32_t threads)
{
    settings.threads = threads;
    stage_open(&settings);
}

static void begin(void)
{
    settings = site_settings();
    begin_with(THREADS);
}

/* ------------------------------------------------------------------ the holder and other threads */

static void a_thread_that_comes_back_in_a_tick_keeps_the_token(void)
{
    begin();
    stage_begin();
    test_client client = ask("/a");
    cast_settle();
    CHECK(has_request(serving[0]));
    CHECK(stage.server->token.holder == serving[0]->thread && stage.server->token.is_out);
    ticks(1); /* one tick is not enough: the holder may have left at its end */
    CHECK_INT(watcher->at, AT_TICK);
    CHECK(stage.server->token.holder == serving[0]->thread);
    CHECK_INT(respond(serving[0], "1"), AT_POLL);
    CHECK(stage.server->token.holder == serving[0]->thread && !stage.server->token.is_out);
    check_answer(&client, "\r\n\r\n1");
    stage_close();
}

static void after_two_ticks_another_thread_is_asked_for_and_runs_the_loop(void)
{
    begin();
    stage_begin();
    test_client slow = ask("/slow");
    cast_settle();
    ticks(2);
    CHECK_INT(watcher->at, AT_HOME);
    CHECK_INT(watcher->result, PW_WATCH_START);
    CHECK_INT(stage.server->threads.count, 2);
    actor *second = stage_start_wanted(1);
    CHECK_INT(second->at, AT_POLL);
    CHECK(stage.server->token.holder == second->thread);
    test_client fast = ask("/fast");
    cast_settle();
    CHECK_PATH(second, "/fast");
    CHECK_INT(respond(second, "2"), AT_POLL);
    check_answer(&fast, "\r\n\r\n2");
    CHECK_INT(respond(serving[0], "1"), AT_SLEEP); /* the other one has the token */
    check_answer(&slow, "\r\n\r\n1");
    stage_close();
}

static void a_line_of_the_access_log_leaves_while_another_thread_waits_for_events(void)
{
    enum { LOG_DELAY_MS = 100 };
    char got[8];
    int ends[2];
    REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
    settings = site_settings();
    settings.access_file = ends[1];
    settings.access_program = (const char[]){PW_ATOM_STATUS, 0, 0};
    settings.access_program_size = 3;
    begin_with(THREADS);
    stage_begin();
    test_client slow = ask("/slow");
    cast_settle();
    ticks(2);
    CHECK_INT(stage_start_wanted(1)->at, AT_POLL);
    CHECK_INT(respond(serving[0], "1"), AT_SLEEP);
    cast_settle();
    CHECK(read(ends[0], got, sizeof got) < 0); /* others may join it for a moment */
    clock_forward_ms(LOG_DELAY_MS);
    cast_settle();
    CHECK_INT(read(ends[0], got, sizeof got), 4);
    CHECK_BYTES(got, 4, "200\n");
    check_answer(&slow, "\r\n\r\n1");
    stage_close();
    close(ends[0]);
    close(ends[1]);
}

static void the_thread_that_went_to_sleep_last_is_woken_first(void)
{
    begin();
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    stage_start_wanted(1);
    test_client two = ask("/2");
    cast_settle();
    stage_start_wanted(2);
    CHECK_INT(respond(serving[0], "1"), AT_SLEEP);
    CHECK_INT(respond(serving[1], "2"), AT_SLEEP);
    test_client three = ask("/3");
    cast_settle();
    CHECK_PATH(serving[2], "/3");
    ticks(2);
    CHECK_INT(serving[1]->at, AT_POLL);
    CHECK_INT(serving[0]->at, AT_SLEEP);
    CHECK(!serving[0]->signalled);
    respond(serving[2], "3");
    check_answer(&one, "\r\n\r\n1");
    check_answer(&two, "\r\n\r\n2");
    check_answer(&three, "\r\n\r\n3");
    stage_close();
}

static void requests_that_find_no_thread_wait_in_their_order(void)
{
    settings = site_settings();
    begin_with(2);
    stage_begin();
    test_client first = ask("/a");
    cast_settle();
    actor *second = stage_start_wanted(1);
    test_client next = ask("/b");
    cast_settle();
    CHECK(has_request(second));
    ticks(3);
    CHECK_INT(watcher->at, AT_POLL); /* no more than two threads: it runs the loop */
    CHECK(stage.server->token.holder == stage.server->watch.thread);
    test_client waiting[3];
    const char *const paths[] = {"/c", "/d", "/e"};
    for (int i = 0; i < 3; i++) {
        waiting[i] = ask(paths[i]);
        cast_settle();
    }
    CHECK_INT(watcher->at, AT_POLL);
    CHECK(stage.server->ready.first != NULL);
    respond(second, "b");
    CHECK_PATH(second, "/c");
    respond(serving[0], "a");
    CHECK_PATH(serving[0], "/d");
    respond(second, "c");
    CHECK_PATH(second, "/e");
    respond(serving[0], "d");
    respond(second, "e");
    check_answer(&first, "\r\n\r\na");
    check_answer(&next, "\r\n\r\nb");
    for (int i = 0; i < 3; i++)
        check_answer(&waiting[i], paths[i] + 1);
    stage_close();
}

static void a_thread_that_comes_back_takes_the_loop_from_the_watcher(void)
{
    settings = site_settings();
    begin_with(1);
    stage_begin();
    test_client client = ask("/a");
    cast_settle();
    ticks(2);
    CHECK(stage.server->token.holder == stage.server->watch.thread);
    CHECK_INT(respond(serving[0], "a"), AT_SLEEP);
    cast_settle();
    ticks(1);
    CHECK(stage.server->token.holder == serving[0]->thread);
    CHECK_INT(serving[0]->at, AT_POLL);
    CHECK_INT(watcher->at, AT_TICK);
    check_answer(&client, "\r\n\r\na");
    stage_close();
}

static void the_same_thread_takes_a_second_request_in_the_application(void)
{
    begin();
    stage_begin();
    test_client client = site_connect(&stage);
    SEND(&client, GET("/1") GET("/2"));
    cast_settle();
    CHECK_PATH(serving[0], "/1");
    CHECK_INT(respond(serving[0], "1"), AT_HOME);
    CHECK_PATH(serving[0], "/2");
    CHECK_INT(stage.server->threads.taken, 1);
    CHECK_INT(respond(serving[0], "2"), AT_POLL);
    CHECK_INT(stage.server->threads.taken, 0);
    check_answer(&client, "\r\n\r\n2");
    stage_close();
}

/* ------------------------------------------------------------------ threads are started */

static void the_core_does_not_ask_at_once_again_for_a_thread_that_cannot_be_started(void)
{
    begin();
    stage_begin();
    test_client slow = ask("/slow");
    cast_settle();
    ticks(2);
    CHECK_INT(watcher->result, PW_WATCH_START);
    pw_watch_failed(stage.server);
    CHECK_INT(stage.server->threads.count, 1);
    actor_call(watcher, call_watch);
    ticks(2);
    CHECK_INT(watcher->at, AT_POLL); /* it runs the loop */
    CHECK_INT(stage.server->threads.count, 1);
    test_client other = ask("/other");
    cast_settle();
    CHECK(stage.server->ready.first != NULL);
    respond(serving[0], "1");
    CHECK_PATH(serving[0], "/other");
    int count = 0;
    while (watcher->at == AT_TICK && count < 2000) { /* 500 ticks after the failure */
        ticks(1);
        count++;
        if (watcher->at == AT_POLL) { /* when it has something to run */
            respond(serving[0], "2");
            if (serving[0]->at != AT_HOME)
                break;
        }
    }
    check_answer(&slow, "\r\n\r\n1");
    client_close(&other);
    stage_close();
}

static void the_core_asks_for_threads_again_after_500_ticks(void)
{
    begin();
    stage_begin();
    test_client slow = ask("/slow");
    cast_settle();
    ticks(2);
    CHECK_INT(watcher->result, PW_WATCH_START);
    int64_t failed = stage.server->watch.ticks;
    pw_watch_failed(stage.server);
    CHECK_INT(stage.server->watch.start_tick, failed + 500);
    stage.server->watch.ticks = failed + 499; /* as the watcher would count */
    actor_call(watcher, call_watch);
    cast_settle();
    CHECK_INT(watcher->at, AT_POLL);
    CHECK_INT(stage.server->threads.count, 1);
    respond(serving[0], "1");
    check_answer(&slow, "\r\n\r\n1");
    cast_settle();
    ticks(2);
    CHECK(stage.server->watch.ticks >= failed + 500);
    slow = ask("/slow");
    cast_settle();
    ticks(2);
    CHECK_INT(watcher->at, AT_HOME);
    CHECK_INT(watcher->result, PW_WATCH_START);
    actor *second = stage_start_wanted(1);
    CHECK_INT(second->at, AT_POLL);
    client_close(&slow);
    stage_close();
}

static void one_thread_alone_never_gets_a_second_one(void)
{
    settings = site_settings();
    begin_with(1);
    stage_begin();
    test_client slow = ask("/slow");
    cast_settle();
    ticks(5);
    CHECK_INT(watcher->at, AT_POLL);
    CHECK_INT(stage.server->threads.count, 1);
    pw_token_hold(serving[0]->thread, true); /* nor if a client holds it */
    cast_settle();
    ticks(3);
    CHECK_INT(watcher->at, AT_POLL);
    CHECK_INT(stage.server->threads.count, 1);
    pw_token_hold(serving[0]->thread, false);
    respond(serving[0], "1");
    check_answer(&slow, "\r\n\r\n1");
    stage_close();
}

static void threads_that_slow_clients_hold_are_replaced_and_retire_in_the_end(void)
{
    settings = site_settings();
    begin_with(2);
    stage_begin();
    test_client clients[4];
    static const char *const paths[] = {"/0", "/1", "/2", "/3"};
    for (int i = 0; i < 2; i++) {
        clients[i] = ask(paths[i]);
        cast_settle();
        CHECK_PATH(serving[i], paths[i]);
        if (i == 0)
            stage_start_wanted(1);
    }
    ticks(3);
    CHECK_INT(watcher->at, AT_POLL); /* two is the maximum */
    pw_token_hold(serving[0]->thread, true);
    cast_settle();
    CHECK_INT(stage.server->threads.held, 1);
    stage_start_wanted(2);
    CHECK_INT(stage.server->threads.count, 3);
    clients[2] = ask(paths[2]);
    cast_settle();
    CHECK_PATH(serving[2], paths[2]);
    ticks(3);
    CHECK_INT(watcher->at, AT_POLL);
    pw_token_hold(serving[1]->thread, true);
    cast_settle();
    stage_start_wanted(3);
    CHECK_INT(stage.server->threads.count, 4);
    clients[3] = ask(paths[3]);
    cast_settle();
    CHECK_PATH(serving[3], paths[3]);
    pw_token_hold(serving[2]->thread, true); /* never more than twice the setting */
    ticks(4);
    CHECK_INT(watcher->at, AT_POLL);
    CHECK_INT(stage.server->threads.count, 4);
    for (int i = 0; i < 3; i++)
        pw_token_hold(serving[i]->thread, false);
    CHECK_INT(stage.server->threads.held, 0);
    int retired = 0;
    for (int i = 0; i < 4; i++) {
        respond(serving[i], paths[i] + 1);
        cast_settle();
        ticks(1);
        if (serving[i]->at == AT_HOME) {
            CHECK_INT(serving[i]->result, PW_STOP);
            retired++;
        }
        check_answer(&clients[i], paths[i] + 1);
    }
    CHECK_INT(retired, 2);
    CHECK_INT(stage.server->threads.count, 2);
    clients[0] = ask("/4");
    cast_settle();
    CHECK(has_request(serving[2]) || has_request(serving[3]));
    client_close(&clients[0]);
    stage_close();
}

/* ------------------------------------------------------------------ a hand-over that pays */

/* As after requests that have waited for long. */
static void let_it_pay(void)
{
    for (int i = 0; i < 3; i++)
        pw_yield_learn_stall(&stage.server->token.rule, pw_nanoseconds());
    REQUIRE(pw_yield_pays(&stage.server->token.rule));
}

static void let_it_not_pay(void)
{
    stage.server->token.rule = (pw_yield_rule){0};
    REQUIRE(!pw_yield_pays(&stage.server->token.rule));
}

static void a_waiting_thread_gets_the_token_at_once_when_that_pays(void)
{
    begin();
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    actor *second = stage_start_wanted(1);
    respond(serving[0], "1");
    CHECK_INT(serving[0]->at, AT_SLEEP);
    check_answer(&one, "\r\n\r\n1");
    let_it_pay();
    one = ask("/2");
    CHECK(actor_is_ready(second));
    actor_go(second);
    CHECK_PATH(second, "/2");
    CHECK(stage.server->token.holder == NULL); /* the first thread that comes gets it */
    CHECK(serving[0]->signalled);
    cast_settle();
    CHECK_INT(serving[0]->at, AT_POLL);
    CHECK(stage.server->token.holder == serving[0]->thread);
    respond(second, "2");
    check_answer(&one, "\r\n\r\n2");
    stage_close();
}

static void without_a_waiting_thread_one_more_is_started_at_once_when_that_pays(void)
{
    begin();
    stage_begin();
    cast_settle();
    let_it_pay();
    test_client one = ask("/1");
    actor_go(serving[0]);
    CHECK_PATH(serving[0], "/1");
    CHECK(stage.server->watch.wants_thread);
    CHECK(watcher->signalled);
    cast_settle(); /* without a tick */
    CHECK_INT(watcher->at, AT_HOME);
    CHECK_INT(watcher->result, PW_WATCH_START);
    CHECK(!stage.server->watch.wants_thread);
    actor *second = stage_start_wanted(1);
    CHECK_INT(second->at, AT_POLL);
    client_close(&one);
    stage_close();
}

static void a_thread_may_take_the_token_of_one_that_is_away_when_that_pays(void)
{
    begin();
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    actor *second = stage_start(1);
    stage.server->threads.count++;
    CHECK_INT(actor_call(second, call_next), AT_SLEEP);
    let_it_pay();
    pw_thread_nudge(second->thread);
    cast_settle();
    CHECK_INT(second->at, AT_HOME);
    CHECK_INT(second->result, PW_IDLE);
    CHECK(stage.server->token.holder == second->thread);
    client_close(&one);
    stage_close();
}

/* Two threads have requests. The request of the second one is measured in full. */
static void begin_company(int32_t gil)
{
    settings = site_settings();
    settings.gil = gil;
    begin_with(THREADS);
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    stage_start_wanted(1);
    client_close(&one);
    let_it_not_pay();
    stage.server->token.rule.looks = 10;
}

static void threads_in_the_application_are_company_when_there_is_a_gil(void)
{
    for (int32_t gil = 0; gil < 2; gil++) {
        begin_company(gil);
        test_client two = ask("/2");
        cast_settle();
        CHECK_PATH(serving[1], "/2");
        CHECK_INT(serving[1]->thread->measure, PW_YIELD_USAGE);
        CHECK_INT(serving[1]->thread->company, gil);
        client_close(&two);
        stage_close();
    }
}

static void a_thread_that_stays_there_for_long_is_no_company(void)
{
    for (int64_t ms = 19; ms <= 20; ms++) {
        begin_company(1);
        int64_t since = serving[0]->thread->taken_at;
        pw_server_wake(stage.server);
        clock_forward_ms(since + ms - pw_now());
        cast_settle();
        test_client two = ask("/2");
        cast_settle();
        CHECK_PATH(serving[1], "/2");
        CHECK_INT(serving[1]->thread->company, ms < 20);
        client_close(&two);
        stage_close();
    }
}

static void a_thread_that_is_back_is_no_company_although_it_waits_for_the_lock(void)
{
    begin_company(1);
    pw_token_back(serving[0]->thread);
    test_client two = ask("/2");
    cast_settle();
    CHECK_PATH(serving[1], "/2");
    CHECK_INT(serving[1]->thread->company, 0);
    client_close(&two);
    stage_close();
}

static void a_thread_that_starts_is_company(void)
{
    begin_company(1);
    pw_token_back(serving[0]->thread);
    stage.server->threads.count++;
    test_client two = ask("/2");
    cast_settle();
    CHECK_INT(serving[1]->thread->company, 1);
    stage.server->threads.count--;
    client_close(&two);
    stage_close();
}

/* The rule learns from a request that has waited. It does not learn
 * from one that has computed beside others. */
static void a_waiting_request_makes_a_hand_over_pay(void)
{
    for (int32_t gil = 0; gil < 2; gil++) {
        settings = site_settings();
        settings.gil = gil;
        begin_with(THREADS);
        stage_begin();
        stage.server->token.rule.looks = 10;
        for (int i = 0; i < 2; i++) {
            CHECK(!pw_yield_pays(&stage.server->token.rule));
            test_client one = ask("/1");
            cast_settle();
            CHECK_INT(serving[0]->thread->measure, PW_YIELD_USAGE);
            serving[0]->thread->out.switches--; /* it has slept */
            clock_forward_ms(1);
            respond(serving[0], "1");
            check_answer(&one, "\r\n\r\n1");
        }
        CHECK(pw_yield_pays(&stage.server->token.rule));
        stage_close();
    }
}

static void a_request_that_another_one_has_passed_had_company(void)
{
    settings = site_settings();
    settings.gil = 1;
    begin_with(THREADS);
    stage_begin();
    stage.server->token.rule.looks = 10;
    for (int i = 0; i < 3; i++) {
        test_client one = ask("/1");
        cast_settle();
        serving[0]->thread->out.switches--;
        stage.server->threads.takes++; /* another request began and ended */
        clock_forward_ms(1);
        respond(serving[0], "1");
        check_answer(&one, "\r\n\r\n1");
    }
    CHECK(!pw_yield_pays(&stage.server->token.rule));
    stage_close();
}

static void a_request_is_long_from_its_limit_on(void)
{
    for (int64_t less = 0; less < 2; less++) {
        settings = site_settings();
        begin_with(THREADS);
        stage_begin();
        stage.server->token.rule.looks = 10;
        test_client one = ask("/1");
        cast_settle();
        CHECK_INT(serving[0]->thread->measure, PW_YIELD_USAGE);
        clock_forward(PW_YIELD_SHORT_NS - less);
        respond(serving[0], "1");
        CHECK(less || stage.server->token.rule.clean_at == pw_nanoseconds());
        CHECK(!less || stage.server->token.rule.clean_at == 0);
        check_answer(&one, "\r\n\r\n1");
        stage_close();
    }
}

/* A holder that is out for two ticks and uses no CPU time waits:
 * the watcher reports that to the rule. */
static void a_holder_that_stalls_off_the_cpu_makes_a_hand_over_pay(void)
{
    if (!PW_LINUX) /* the CPU time of another thread is unknown */
        return;
    settings = site_settings();
    settings.gil = 1;
    begin_with(THREADS);
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    ticks(1);
    CHECK(!pw_yield_pays(&stage.server->token.rule));
    serving[0]->thread->stall_cpu = pw_thread_cpu(serving[0]->thread->system);
    ticks(1);
    CHECK(pw_yield_pays(&stage.server->token.rule));
    client_close(&one);
    stage_close();
}

static void a_holder_that_computes_or_is_held_does_not_stall(void)
{
    for (int kind = 0; kind < 4; kind++) {
        settings = site_settings();
        settings.gil = 1;
        begin_with(kind == 3 ? 1 : THREADS);
        stage_begin();
        test_client one = ask("/1");
        cast_settle();
        ticks(1);
        pw_thread *thread = serving[0]->thread;
        thread->stall_cpu = pw_thread_cpu(thread->system);
        if (kind == 0)
            thread->stall_cpu -= 200000; /* ns in a tick */
        if (kind == 1)
            thread->held = true; /* for a slow client */
        if (kind == 2)
            thread->stall_cpu = -1; /* the watcher has not looked before */
        cast_tick(watcher);
        ABOUT("kind %d", kind);
        CHECK(!pw_yield_pays(&stage.server->token.rule));
        thread->held = false;
        client_close(&one);
        stage_close();
    }
}

/* ------------------------------------------------------------------ the watcher */

static void the_watcher_sleeps_when_there_is_no_work_and_a_request_wakes_it(void)
{
    begin();
    stage_begin();
    cast_settle();
    int count = 0;
    for (; watcher->at == AT_TICK && count < 200; count++)
        ticks(1);
    CHECK_INT(watcher->at, AT_SLEEP);
    CHECK(count >= 50 && count <= 53);
    CHECK(stage.server->watch.sleeps);
    test_client one = ask("/1");
    cast_settle();
    CHECK_PATH(serving[0], "/1");
    CHECK_INT(watcher->at, AT_TICK);
    CHECK(!stage.server->watch.sleeps);
    ticks(2);
    CHECK_INT(watcher->result, PW_WATCH_START);
    stage_start_wanted(1);
    respond(serving[0], "1");
    check_answer(&one, "\r\n\r\n1");
    stage_close();
}

static void the_watcher_stays_awake_while_requests_come(void)
{
    begin();
    stage_begin();
    for (int i = 0; i < 60; i++) {
        test_client one = ask("/1");
        cast_settle();
        respond(serving[0], "1");
        check_answer(&one, "\r\n\r\n1");
        ticks(1);
        CHECK_INT(watcher->at, AT_TICK);
    }
    stage_close();
}

static void a_request_that_takes_too_long_is_named_twice(void)
{
    settings = site_settings();
    settings.timeout_request = 1000;
    begin_with(2);
    stage_begin();
    test_client slow = ask("/slow");
    cast_settle();
    stage_start_wanted(1);
    test_client slower = ask("/slower");
    cast_settle();
    int named[2][4] = {{0}};
    int64_t when[2][4] = {{0}}, since = pw_now();
    for (int i = 0; i < 2000; i++) {
        if (watcher->at == AT_HOME) {
            int number = (int)(watcher->result / 8), what = (int)(watcher->result % 8);
            REQUIRE(number >= 0 && number < 2 && what < 4);
            named[number][what]++;
            when[number][what] = pw_now() - since;
            actor_call(watcher, call_watch);
        } else if (watcher->at == AT_POLL) { /* it runs the loop, and checks as often */
            clock_forward_ms(10);
            cast_settle();
        } else {
            ticks(1);
        }
    }
    for (int i = 0; i < 2; i++) {
        CHECK_INT(named[i][PW_WATCH_SLOW], 1);
        CHECK_INT(named[i][PW_WATCH_STUCK], 1);
        CHECK(when[i][PW_WATCH_SLOW] >= 1000 - 10 && when[i][PW_WATCH_SLOW] <= 1000 + LOOK_MS + 20);
        CHECK(when[i][PW_WATCH_STUCK] >= 2000 - 10 &&
              when[i][PW_WATCH_STUCK] <= 2000 + LOOK_MS + 20);
    }
    respond(serving[0], "1");
    respond(serving[1], "2");
    check_answer(&slow, "\r\n\r\n1");
    check_answer(&slower, "\r\n\r\n2");
    stage_close();
}

static void the_watcher_that_runs_the_loop_checks_every_100_ms(void)
{
    settings = site_settings();
    settings.timeout_request = 10000;
    begin_with(1);
    stage_begin();
    test_client slow = ask("/slow");
    cast_settle();
    ticks(3);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(watcher->at, AT_POLL);
        int64_t before = stage.server->watch.looked_at;
        CHECK(watcher->due >= before + LOOK_MS && watcher->due <= before + LOOK_MS + 10);
        clock_forward_ms(watcher->due - pw_now() - 1);
        cast_settle();
        CHECK_INT(watcher->at, AT_POLL); /* and it was off the CPU all the time */
        CHECK_INT(stage.server->watch.looked_at, before);
        clock_forward_ms(1);
        cast_settle();
        CHECK(stage.server->watch.looked_at > before);
        ticks(1);
    }
    respond(serving[0], "1");
    check_answer(&slow, "\r\n\r\n1");
    stage_close();
}

static void a_thread_that_was_named_is_named_again_at_its_next_request(void)
{
    settings = site_settings();
    settings.timeout_request = 1000;
    begin_with(1);
    stage_begin();
    for (int turn = 0; turn < 2; turn++) {
        test_client slow = ask("/slow");
        cast_settle();
        int named = 0;
        for (int i = 0; i < 150 && named == 0; i++) {
            clock_forward_ms(10);
            ticks(1);
            if (watcher->at == AT_HOME) {
                CHECK_INT(watcher->result, 0 * 8 + PW_WATCH_SLOW);
                named++;
                actor_call(watcher, call_watch);
            }
        }
        CHECK_INT(named, 1);
        respond(serving[0], "1");
        cast_settle();
        ticks(1);
        CHECK_INT(serving[0]->at, AT_POLL);
        check_answer(&slow, "\r\n\r\n1");
    }
    stage_close();
}

static void without_a_timeout_nothing_is_named(void)
{
    begin();
    stage_begin();
    test_client slow = ask("/slow");
    cast_settle();
    stage_start_wanted(1);
    clock_forward_ms(1800 * 1000);
    ticks(5);
    CHECK_INT(watcher->at, AT_TICK);
    respond(serving[0], "1");
    check_answer(&slow, "\r\n\r\n1");
    stage_close();
}

/* ------------------------------------------------------------------ nudges and news */

static void a_nudge_reaches_a_thread_wherever_it_waits(void)
{
    begin();
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    actor *second = stage_start_wanted(1); /* in the poller */
    pw_thread_nudge(second->thread);
    cast_settle();
    CHECK_INT(second->at, AT_HOME);
    CHECK_INT(second->result, PW_IDLE);
    CHECK_INT(actor_call(second, call_next), AT_POLL); /* only once */
    respond(serving[0], "1");
    CHECK_INT(serving[0]->at, AT_SLEEP);
    pw_thread_nudge(serving[0]->thread);
    cast_settle();
    CHECK_INT(serving[0]->at, AT_HOME);
    CHECK_INT(serving[0]->result, PW_IDLE);
    CHECK_INT(actor_call(serving[0], call_next), AT_SLEEP);
    check_answer(&one, "\r\n\r\n1");
    stage_close();
}

static void a_thread_that_comes_while_another_has_the_token_gets_the_news(void)
{
    begin();
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    actor *second = stage_start_wanted(1);
    pw_thread_request(serving[0]->thread)->lends = 1;
    int64_t exchange = pw_thread_request(serving[0]->thread)->exchange;
    CHECK_INT(respond(serving[0], "lent"), AT_HOME);
    CHECK_INT(serving[0]->result, PW_IDLE);
    cast_settle();
    CHECK_INT(second->at, AT_HOME); /* it was woken to report it */
    CHECK_INT(second->result, PW_IDLE);
    CHECK_INT(pw_news(second->thread), exchange * 2 + PW_NEWS_SENT);
    CHECK_INT(pw_news(serving[0]->thread), exchange * 2 + PW_NEWS_SENT); /* until pw_news_done */
    pw_news_done(second->thread);
    CHECK_INT(pw_news(second->thread), -1);
    check_answer(&one, "lent");
    stage_close();
}

/* ------------------------------------------------------------------ a stop, and threads that end */

static void a_stop_ends_all_waiting(void)
{
    begin();
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    stage_start_wanted(1);
    test_client two = ask("/2");
    cast_settle();
    stage_start_wanted(2);
    respond(serving[0], "1");
    CHECK_INT(serving[0]->at, AT_SLEEP);
    CHECK_INT(serving[2]->at, AT_POLL);
    pw_server_stop(stage.server, PW_END);
    cast_settle();
    CHECK_INT(serving[0]->at, AT_HOME);
    CHECK_INT(serving[0]->result, PW_STOP);
    CHECK_INT(serving[2]->at, AT_HOME);
    CHECK_INT(serving[2]->result, PW_STOP);
    CHECK_INT(watcher->at, AT_HOME);
    CHECK_INT(watcher->result, PW_WATCH_STOP);
    CHECK_INT(respond(serving[1], "2"), AT_HOME);
    CHECK_INT(serving[1]->result, PW_STOP);
    check_answer(&one, "\r\n\r\n1");
    client_close(&two);
    stage_close();
}

static void a_stop_reaches_the_watcher_that_sleeps_or_runs_the_loop(void)
{
    begin();
    stage_begin();
    cast_settle();
    ticks(60);
    CHECK_INT(watcher->at, AT_SLEEP);
    pw_server_stop(stage.server, PW_DRAIN);
    cast_settle();
    CHECK_INT(watcher->at, AT_HOME);
    CHECK_INT(watcher->result, PW_WATCH_STOP);
    stage_close();
    settings = site_settings();
    begin_with(1);
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    ticks(3);
    CHECK_INT(watcher->at, AT_POLL);
    pw_server_stop(stage.server, PW_END);
    cast_settle();
    CHECK_INT(watcher->at, AT_HOME);
    CHECK_INT(respond(serving[0], "1"), AT_HOME);
    CHECK_INT(serving[0]->result, PW_STOP);
    client_close(&one);
    stage_close();
}

static void a_thread_that_is_freed_leaves_the_token_to_another(void)
{
    begin();
    stage_begin();
    test_client one = ask("/1");
    cast_settle();
    actor *second = stage_start_wanted(1);
    respond(serving[0], "1");
    CHECK_INT(serving[0]->at, AT_SLEEP);
    check_answer(&one, "\r\n\r\n1");
    let_it_not_pay();
    one = ask("/2");
    cast_settle();
    CHECK_PATH(second, "/2");
    CHECK(stage.server->token.holder == second->thread);
    serving[1] = NULL;
    pw_thread *freed = second->thread;
    cast_remove(second);
    pw_thread_free(freed); /* as if Python had freed it during a request */
    stage.server->threads.count--;
    audit(stage.server);
    CHECK(serving[0]->signalled);
    cast_settle();
    CHECK_INT(serving[0]->at, AT_POLL);
    CHECK_INT(stage.server->threads.taken, 0);
    one.ended = false;
    client_receive(&one);
    CHECK(one.ended); /* its exchange is abandoned */
    client_close(&one);
    one = ask("/3");
    cast_settle();
    CHECK_PATH(serving[0], "/3");
    client_close(&one);
    stage_close();
}

/* ------------------------------------------------------------------ any order */

enum { CLIENTS = 4, STEPS = 400, EPISODES = 36, OWED_MOST = 3 };

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static test_client clients[CLIENTS];
static int asked[CLIENTS], answered[CLIENTS];

static void ask_one(int which)
{
    char request[100];
    if (asked[which] - answered[which] >= OWED_MOST)
        return;
    int size = snprintf(request, sizeof request, "GET /%d/%d HTTP/1.1\r\nHost: a\r\n\r\n", which,
                        asked[which]++);
    client_send(&clients[which], request, (size_t)size);
}

/* Every client gets its own responses, in the order of its requests. */
static void read_answers(void)
{
    for (int i = 0; i < CLIENTS; i++) {
        char expected[40];
        client_receive(&clients[i]);
        for (;;) {
            int size = snprintf(expected, sizeof expected, "\r\n\r\n/%d/%d;", i, answered[i]);
            const char *end = clients[i].got.at != NULL
                                  ? memmem(clients[i].got.at, clients[i].got.size, "\r\n\r\n", 4)
                                  : NULL;
            if (end == NULL)
                break;
            size_t head = (size_t)(end - clients[i].got.at), all = head + (size_t)size;
            if (clients[i].got.size < all)
                break;
            REQUIRE(memcmp(end, expected, (size_t)size) == 0);
            memmove(clients[i].got.at, clients[i].got.at + all, clients[i].got.size - all);
            clients[i].got.size -= all;
            answered[i]++;
        }
    }
}

static void answer_one(actor *one)
{
    static char bodies[ACTORS_MOST][64];
    char *body = bodies[one->thread->number];
    snprintf(body, sizeof bodies[0], "%s;", path_of(one));
    respond(one, body);
}

/* What Python does after a call has returned. */
static void take_turn(actor *one)
{
    stage_take_news();
    if (has_request(one))
        answer_one(one);
    else if (one->at == AT_HOME && one->result != PW_STOP)
        actor_call(one, call_next);
}

static void watch_on(bool fails)
{
    if (watcher->at != AT_HOME)
        return;
    if (watcher->result == PW_WATCH_START) {
        int number = 1;
        while (number < ACTORS_MOST && serving[number] != NULL)
            number++;
        REQUIRE(number < THREADS + 1);
        if (fails)
            pw_watch_failed(stage.server);
        else
            stage_start(number);
    }
    for (pw_incident incident; pw_incident_take(stage.server, &incident);)
        continue;
    actor_call(watcher, call_watch);
}

static void step(void)
{
    actor *one = serving[draw(THREADS)];
    switch (draw(8)) {
    case 0:
    case 1:
        ask_one((int)draw(CLIENTS));
        break;
    case 2:
        if (one != NULL)
            take_turn(one);
        break;
    case 3:
        if (one != NULL && actor_is_ready(one))
            actor_go(one);
        break;
    case 4:
        if (actor_is_ready(watcher))
            actor_go(watcher);
        break;
    case 5:
        clock_forward_ms(draw(3));
        if (watcher->at == AT_TICK)
            actor_go(watcher);
        break;
    case 6:
        watch_on(draw(8) == 0);
        break;
    case 7:
        if (one != NULL && draw(4) == 0)
            pw_thread_nudge(one->thread);
        if (draw(20) == 0)
            let_it_pay();
        break;
    }
    audit(stage.server);
    read_answers();
}

/* All actors continue, and no client sends requests. All earlier
 * requests must be answered after a few ticks. */
static void finish_all(void)
{
    for (int round = 0; round < 100; round++) {
        cast_settle();
        watch_on(false);
        for (int i = 0; i < THREADS; i++)
            if (serving[i] != NULL)
                take_turn(serving[i]);
        cast_tick(watcher);
        read_answers();
        audit(stage.server);
    }
    for (int i = 0; i < CLIENTS; i++)
        REQUIRE(answered[i] == asked[i]);
}

static void no_request_and_no_token_is_lost_in_any_order(void)
{
    for (int episode = 0; episode < EPISODES; episode++) {
        ABOUT("episode %d", episode);
        state = (uint64_t)episode + 1;
        settings = site_settings();
        settings.gil = episode % 2;
        settings.timeout_request = episode % 4 < 2 ? 0 : 20;
        begin_with(1 + episode % THREADS);
        for (int i = 0; i < CLIENTS; i++) {
            clients[i] = site_connect(&stage);
            asked[i] = answered[i] = 0;
        }
        actor_call(watcher, call_watch);
        actor_call(serving[0], call_next);
        for (int i = 0; i < STEPS; i++)
            step();
        finish_all();
        CHECK_INT(stage.server->threads.taken, 0);
        for (int i = 0; i < CLIENTS; i++)
            client_close(&clients[i]);
        cast_settle();
        ticks(2);
        CHECK_INT(stage.server->conn_count, 0);
        stage_close();
    }
}

int main(void)
{
    RUN(a_thread_that_comes_back_in_a_tick_keeps_the_token);
    RUN(after_two_ticks_another_thread_is_asked_for_and_runs_the_loop);
    RUN(a_line_of_the_access_log_leaves_while_another_thread_waits_for_events);
    RUN(the_thread_that_went_to_sleep_last_is_woken_first);
    RUN(requests_that_find_no_thread_wait_in_their_order);
    RUN(a_thread_that_comes_back_takes_the_loop_from_the_watcher);
    RUN(the_same_thread_takes_a_second_request_in_the_application);
    RUN(the_core_does_not_ask_at_once_again_for_a_thread_that_cannot_be_started);
    RUN(the_core_asks_for_threads_again_after_500_ticks);
    RUN(one_thread_alone_never_gets_a_second_one);
    RUN(threads_that_slow_clients_hold_are_replaced_and_retire_in_the_end);
    RUN(a_waiting_thread_gets_the_token_at_once_when_that_pays);
    RUN(without_a_waiting_thread_one_more_is_started_at_once_when_that_pays);
    RUN(a_thread_may_take_the_token_of_one_that_is_away_when_that_pays);
    RUN(threads_in_the_application_are_company_when_there_is_a_gil);
    RUN(a_thread_that_stays_there_for_long_is_no_company);
    RUN(a_thread_that_is_back_is_no_company_although_it_waits_for_the_lock);
    RUN(a_thread_that_starts_is_company);
    RUN(a_waiting_request_makes_a_hand_over_pay);
    RUN(a_request_that_another_one_has_passed_had_company);
    RUN(a_request_is_long_from_its_limit_on);
    RUN(a_holder_that_stalls_off_the_cpu_makes_a_hand_over_pay);
    RUN(a_holder_that_computes_or_is_held_does_not_stall);
    RUN(the_watcher_sleeps_when_there_is_no_work_and_a_request_wakes_it);
    RUN(the_watcher_stays_awake_while_requests_come);
    RUN(a_request_that_takes_too_long_is_named_twice);
    RUN(the_watcher_that_runs_the_loop_checks_every_100_ms);
    RUN(a_thread_that_was_named_is_named_again_at_its_next_request);
    RUN(without_a_timeout_nothing_is_named);
    RUN(a_nudge_reaches_a_thread_wherever_it_waits);
    RUN(a_thread_that_comes_while_another_has_the_token_gets_the_news);
    RUN(a_stop_ends_all_waiting);
    RUN(a_stop_reaches_the_watcher_that_sleeps_or_runs_the_loop);
    RUN(a_thread_that_is_freed_leaves_the_token_to_another);
    RUN(no_request_and_no_token_is_lost_in_any_order);
    return check_end();
}
