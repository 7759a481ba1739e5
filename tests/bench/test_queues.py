"""The simulated latencies agree with the exact formulas for M/M/1 and M/M/c (Erlang C)."""

from __future__ import annotations

import math
import statistics

import pytest

from bench.queues import POLICIES, Farm, quantile, simulate

#: How many standard errors a result may be off. With the same seed the result is always the same.
ERRORS = 3.0


def erlang_c(servers: int, load: float) -> float:
    """Return the share of requests that wait, in a queue with so many servers (M/M/c)."""
    blocked = 1.0  # Erlang B, by its recursion
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    utilisation = load / servers
    return blocked / (1 - utilisation + utilisation * blocked)


def mean_latency(servers: int, load: float) -> float:
    return 1 + erlang_c(servers, load) / (servers - load)


def later_than(time: float, servers: int, load: float) -> float:
    """Return the share of requests with a higher latency than `time` in M/M/c."""
    waits, rate = erlang_c(servers, load), servers - load
    at_once = math.exp(-time)
    if math.isclose(rate, 1):
        after_waiting = (1 + time) * at_once
    else:
        after_waiting = (rate * at_once - math.exp(-rate * time)) / (rate - 1)
    return (1 - waits) * at_once + waits * after_waiting


def exact_quantile(share: float, servers: int, load: float) -> float:
    low, high = 0.0, 1000.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if later_than(middle, servers, load) > 1 - share else (low, middle)
        )
    return low


def standard_error(farm: Farm, values: list[float]) -> float:
    """Return at most the error of the mean of so many values, which depend on each other.

    The correlation of two requests falls at least as fast as the queue forgets its past.
    """
    together = 1 + 2 * farm.memory * farm.rate
    return math.sqrt(statistics.pvariance(values) * together / len(values))


def check(measured: float, exact: float, error: float, what: str) -> None:
    assert abs(measured - exact) < error * ERRORS, (
        f"{what}: expected {exact:.4f} ± {error * ERRORS:.4f}, got {measured:.4f}"
    )


@pytest.mark.parametrize(
    ("servers", "load", "expected"),
    # From tables of Erlang C; for one server it is the utilisation, for two 2 u² / (1 + u).
    [(1, 0.8, 0.8), (2, 1.6, 0.7111), (5, 4.0, 0.5541), (10, 8.0, 0.4092), (100, 95.0, 0.5062)],
)
def test_the_exact_formula_gives_known_values(servers, load, expected):
    assert erlang_c(servers, load) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("utilisation", [0.5, 0.8, 0.9])
def test_the_mean_latency_of_one_instance_is_that_of_m_m_1(utilisation):
    count = 400_000
    found = simulate(Farm(1, utilisation), count, seed=5)
    # The asymptotic variance of the mean of successive waits in M/M/1, by its exact formula.
    u = utilisation
    variance = u * (2 + 5 * u - 4 * u**2 + u**3) / (1 - u) ** 4
    error = math.sqrt((variance + 1) / count)
    assert error * ERRORS < 0.12 / (1 - u), "expected enough requests for a check"
    check(statistics.fmean(found), 1 / (1 - u), error, f"M/M/1 at {u}")


@pytest.mark.parametrize("servers", [1, 5, 200])
@pytest.mark.parametrize(("utilisation", "shares"), [(0.5, 3), (0.8, 2)])
def test_the_latencies_of_one_queue_are_those_of_erlang_c(servers, utilisation, shares):
    farm, load = Farm(1, utilisation, threads=servers), servers * utilisation
    found = simulate(farm, 200_000, seed=7)
    what = f"M/M/{servers} at {utilisation}"
    mean = mean_latency(servers, load)
    error = standard_error(farm, found)
    assert error * ERRORS < 0.15 * mean, "expected enough requests for a check"
    check(statistics.fmean(found), mean, error, f"the mean of {what}")
    # The more the requests depend on each other, the more of them a high percentile needs.
    for share in (0.5, 0.9, 0.99)[:shares]:
        exact = exact_quantile(share, servers, load)
        above = [float(value > exact) for value in found]
        error = standard_error(farm, above)
        assert error * ERRORS < 0.3 * (1 - share), "expected enough requests for a check"
        check(statistics.fmean(above), 1 - share, error, f"the share above p{share} of {what}")


@pytest.mark.parametrize("policy", POLICIES)
def test_one_instance_needs_no_balancing(policy):
    expected = simulate(Farm(1, 0.8), 2000, seed=3)
    assert simulate(Farm(1, 0.8, policy), 2000, seed=3) == expected


def test_random_balancing_makes_a_queue_of_its_own_of_each_instance():
    farm = Farm(20, 0.8, "random")
    found = simulate(farm, 200_000, seed=4)
    # Each of the 20 queues has a part of the requests.
    check(statistics.fmean(found), 1 / (1 - 0.8), standard_error(farm, found), "20 x M/M/1")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("threads", [1, 4])
def test_the_latency_grows_with_the_utilisation(policy, threads):
    means, tails = [], []
    for utilisation in (0.5, 0.7, 0.85, 0.95):
        farm = Farm(8, utilisation, policy, threads)
        found = simulate(farm, 20_000, seed=2, warm_up=5_000)  # the same requests each time
        means.append(statistics.fmean(found))
        tails.append(quantile(sorted(found), 0.99))
    assert means == sorted(means)
    assert tails == sorted(tails)


def test_more_instances_with_the_same_utilisation_wait_less():
    tails = [
        quantile(sorted(simulate(Farm(number, 0.9), 40_000, seed=6)), 0.99)
        for number in (1, 2, 4, 10, 100)
    ]
    assert tails == sorted(tails, reverse=True)


def test_one_queue_waits_least_then_least_connections_then_round_robin_then_random():
    means = [statistics.fmean(simulate(Farm(1, 0.85, threads=10), 50_000, seed=8))]
    means += [statistics.fmean(simulate(Farm(10, 0.85, name), 50_000, seed=8)) for name in POLICIES]
    assert list(POLICIES) == ["least connections", "round robin", "random"]
    assert means == sorted(means)
    assert means[0] * 1.02 < means[1] < means[2] * 0.8 < means[3] * 0.8


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_latencies_and_another_seed_others(policy):
    farm = Farm(5, 0.9, policy, 2)
    first = simulate(farm, 3000, seed=1)
    assert simulate(farm, 3000, seed=1) == first
    assert simulate(farm, 3000, seed=2) != first


def test_every_request_has_a_latency_also_the_last_ones_that_wait():
    found = simulate(Farm(3, 0.95), 5000, seed=1)
    assert len(found) == 5000
    assert min(found) > 0


def test_a_sample_is_larger_where_the_queue_remembers_for_longer():
    assert Farm(1, 0.5).sample(300_000) == 300_000
    assert Farm(1, 0.95).sample(300_000) > 1_000_000
    assert Farm(10, 0.95, "random").sample(300_000) == Farm(1, 0.95).sample(300_000)


@pytest.mark.parametrize("utilisation", [0, 1, 1.5])
def test_a_utilisation_without_a_steady_state_is_refused(utilisation):
    with pytest.raises(ValueError, match="utilisation is"):
        simulate(Farm(1, utilisation), 10, seed=1)
