/* csrc/conn_balance.c: which of several processes takes a new connection. */
#include <unistd.h>

#include "check.h"
#include "conn_balance.h"

static pw_balance *balance;

/* Makes a place of another process. */
static pw_place *join_as(int process, int connections)
{
    pw_place *place = pw_balance_join(balance);
    REQUIRE(place != NULL);
    atomic_store(&place->process, process);
    atomic_store(&place->connections, connections);
    return place;
}

static void open_balance(void)
{
    balance = pw_balance_new();
    REQUIRE(balance != NULL);
}

static void a_server_with_more_connections_than_another_is_ahead(void)
{
    static const struct {
        int mine, least;
        bool ahead;
    } cases[] = {{0, 0, false}, {1, 0, true},      {1, 1, false},   {2, 1, true},
                 {4, 3, true},  {5, 4, false},     {6, 4, true},    {10, 8, false},
                 {11, 8, true}, {125, 100, false}, {126, 100, true}};
    open_balance();
    pw_place *own = join_as(1, 0);
    pw_place *least = join_as(2, 0);
    join_as(3, 1000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("%d connections, another has %d", cases[i].mine, cases[i].least);
        atomic_store(&own->connections, cases[i].mine);
        atomic_store(&least->connections, cases[i].least);
        CHECK_INT(pw_balance_is_ahead(balance, own), cases[i].ahead);
    }
    ABOUT("%s", "");
    pw_balance_free(balance);
}

static void a_server_with_more_requests_than_another_is_ahead(void)
{
    static const struct {
        int mine, other;
        bool ahead;
    } cases[] = {{0, 0, false},   {1, 0, false},  {2, 0, true},      {2, 1, false},   {3, 1, true},
                 {16, 12, false}, {17, 12, true}, {126, 100, false}, {127, 100, true}};
    open_balance();
    pw_place *own = join_as(1, 0);
    pw_place *other = join_as(2, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("%d requests, the other has %d", cases[i].mine, cases[i].other);
        atomic_store(&own->requests, cases[i].mine);
        atomic_store(&other->requests, cases[i].other);
        /* With no number of connections do both leave new ones to each other. */
        for (int connections = 0; connections <= 1000; connections += 500) {
            atomic_store(&own->connections, 0);
            atomic_store(&other->connections, connections);
            CHECK_INT(pw_balance_is_ahead(balance, own), cases[i].ahead);
            CHECK(!cases[i].ahead || !pw_balance_is_ahead(balance, other));
        }
    }
    ABOUT("%s", "");
    pw_balance_free(balance);
}

static void connections_count_only_among_servers_with_about_as_many_requests(void)
{
    open_balance();
    pw_place *own = join_as(1, 10);
    pw_place *other = join_as(2, 5);
    CHECK(pw_balance_is_ahead(balance, own));
    atomic_store(&other->requests, 1);
    CHECK(pw_balance_is_ahead(balance, own));
    atomic_store(&other->requests, 2);
    CHECK(!pw_balance_is_ahead(balance, own));
    CHECK(pw_balance_is_ahead(balance, other));
    pw_balance_free(balance);
}

static void two_servers_never_leave_new_connections_to_each_other(void)
{
    open_balance();
    pw_place *one = join_as(1, 0), *two = join_as(2, 0);
    for (int i = 0; i < 20 * 20 * 20 * 20; i++) {
        atomic_store(&one->requests, i % 20);
        atomic_store(&two->requests, i / 20 % 20);
        atomic_store(&one->connections, i / 400 % 20);
        atomic_store(&two->connections, i / 8000);
        CHECK(!pw_balance_is_ahead(balance, one) || !pw_balance_is_ahead(balance, two));
    }
    pw_balance_free(balance);
}

static void only_living_servers_count(void)
{
    open_balance();
    pw_place *own = join_as(11, 5);
    CHECK(!pw_balance_is_ahead(balance, own));
    pw_place *other = join_as(12, 0);
    CHECK(pw_balance_is_ahead(balance, own));
    pw_balance_leave(other);
    CHECK(!pw_balance_is_ahead(balance, own));
    join_as(13, 0);
    CHECK(pw_balance_is_ahead(balance, own));
    pw_balance_forget(balance, 12);
    CHECK(pw_balance_is_ahead(balance, own));
    pw_balance_forget(balance, 13);
    CHECK(!pw_balance_is_ahead(balance, own));
    pw_balance_free(balance);
}

static void a_place_is_used_by_one_server_and_again_when_it_is_free(void)
{
    open_balance();
    pw_place *own = pw_balance_join(balance);
    CHECK_INT(atomic_load(&own->process), getpid());
    atomic_store(&own->connections, 7);
    CHECK(pw_balance_join(balance) != own);
    pw_balance_leave(own);
    CHECK(pw_balance_join(balance) == own);
    CHECK_INT(atomic_load(&own->connections), 0);
    int taken = 2;
    while (pw_balance_join(balance) != NULL)
        taken++;
    CHECK_INT(taken, 512);
    pw_balance_free(balance);
}

int main(void)
{
    RUN(a_server_with_more_connections_than_another_is_ahead);
    RUN(a_server_with_more_requests_than_another_is_ahead);
    RUN(connections_count_only_among_servers_with_about_as_many_requests);
    RUN(two_servers_never_leave_new_connections_to_each_other);
    RUN(only_living_servers_count);
    RUN(a_place_is_used_by_one_server_and_again_when_it_is_free);
    return check_end();
}
