"""Simulates requests at several instances of a server behind a load balancer, event by event.

Requests arrive independently of each other (Poisson). Their durations are exponential with a mean
of 1, so all times are multiples of the mean duration. An instance serves `threads` requests at a
time, in the order in which they came. The same seed gives the same result. Never measures.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Protocol


class Balancer(Protocol):
    """Chooses an instance for each request."""

    def choose(self) -> int: ...

    def leave(self, instance: int) -> None:
        """Note that a request of this instance has ended."""


class _RoundRobin:
    def __init__(self, instances: int, _random: Callable[[], float]) -> None:
        self._instances = instances
        self._next = -1

    def choose(self) -> int:
        self._next = (self._next + 1) % self._instances
        return self._next

    def leave(self, instance: int) -> None:
        pass


class _Random:
    def __init__(self, instances: int, random: Callable[[], float]) -> None:
        self._instances = instances
        self._random = random

    def choose(self) -> int:
        return int(self._random() * self._instances)

    def leave(self, instance: int) -> None:
        pass


class _LeastConnections:
    """Any of the instances with the fewest open requests. Each operation takes constant time."""

    def __init__(self, instances: int, random: Callable[[], float]) -> None:
        self._random = random
        #: The instances with 0, 1, 2, ... open requests, and the first of these lists with any.
        self._levels: list[list[int]] = [list(range(instances)), []]
        self._lowest = 0
        #: The open requests of each instance, and its place in the list.
        self._open = [0] * instances
        self._place = list(range(instances))

    def choose(self) -> int:
        level = self._levels[self._lowest]
        instance = level[int(self._random() * len(level))]
        self._move(instance, self._lowest + 1)
        if not level:
            self._lowest += 1
        return instance

    def leave(self, instance: int) -> None:
        below = self._open[instance] - 1
        self._move(instance, below)
        self._lowest = min(self._lowest, below)

    def _move(self, instance: int, to: int) -> None:
        level = self._levels[self._open[instance]]
        last = level.pop()
        if last != instance:
            place = self._place[instance]
            level[place] = last
            self._place[last] = place
        if to == len(self._levels):
            self._levels.append([])
        target = self._levels[to]
        self._place[instance] = len(target)
        self._open[instance] = to
        target.append(instance)


#: The ways to choose an instance. One queue for all is an instance with more threads.
POLICIES: dict[str, Callable[[int, Callable[[], float]], Balancer]] = {
    "least connections": _LeastConnections,
    "round robin": _RoundRobin,
    "random": _Random,
}


@dataclass(frozen=True)
class Farm:
    """Instances of a server, their load as a share of what they can serve, and their balancer."""

    instances: int
    utilisation: float
    policy: str = "least connections"
    threads: int = 1

    @property
    def rate(self) -> float:
        """The number of requests that arrive in the mean duration of a request."""
        return self.utilisation * self.instances * self.threads

    @property
    def memory(self) -> float:
        """How long a queue takes to forget its past (the relaxation time of M/M/c).

        Least connections almost make one queue of all instances. Otherwise each has its own.
        """
        together = self.instances if self.policy == "least connections" else 1
        return 1 / (together * self.threads * (1 - math.sqrt(self.utilisation)) ** 2)

    def warm_up(self) -> int:
        """Return the number of first requests that do not count: they find empty queues."""
        return math.ceil(self.rate * (10 * self.memory + 10))

    def sample(self, least: int) -> int:
        """Return how many requests a result needs.

        That is `least`, or more where the queues remember for so long that the requests of
        1,000 such times are more. Queues that do not depend on each other count together.
        """
        apart = 1 if self.policy == "least connections" else self.instances
        return max(least, math.ceil(1000 * self.memory * self.rate / apart))


def simulate(farm: Farm, requests: int, seed: int, warm_up: int | None = None) -> list[float]:
    """Return the latencies of so many requests after the warm-up, in the order of arrival."""
    if not 0 < farm.utilisation < 1:
        raise ValueError(f"utilisation is {farm.utilisation}: expected a number between 0 and 1")
    # Each purpose has its own numbers. So two farms get the same requests, and chance makes less of
    # the difference between them.
    arrivals, durations, choices = (
        Random(f"{seed} {purpose}").random  # noqa: S311
        for purpose in ("arrivals", "durations", "choices")
    )
    balancer = POLICIES[farm.policy](farm.instances, choices)
    choose, leave, log = balancer.choose, balancer.leave, math.log
    pause = -1 / farm.rate
    skipped = farm.warm_up() if warm_up is None else warm_up
    # The ends of the running requests, and the instance of each.
    ends: list[tuple[float, int]] = []
    free = [farm.threads] * farm.instances
    # The waiting requests of an instance: their numbers, arrivals and durations.
    waiting: list[deque[tuple[int, float, float]]] = [deque() for _ in free]
    latencies = [0.0] * requests

    def end_until(now: float) -> None:
        """Handle the ends before `now`; the next requests of these instances begin."""
        while ends and ends[0][0] <= now:
            end, instance = heappop(ends)
            leave(instance)
            if queue := waiting[instance]:
                number, arrived, duration = queue.popleft()
                heappush(ends, (end + duration, instance))
                if number >= skipped:
                    latencies[number - skipped] = end + duration - arrived
            else:
                free[instance] += 1

    now = 0.0
    for number in range(skipped + requests):
        now += pause * log(1 - arrivals())
        duration = -log(1 - durations())
        if ends and ends[0][0] <= now:
            end_until(now)
        instance = choose()
        if free[instance]:
            free[instance] -= 1
            heappush(ends, (now + duration, instance))
            if number >= skipped:
                latencies[number - skipped] = duration
        else:
            waiting[instance].append((number, now, duration))
    end_until(math.inf)  # later requests cannot change when these begin
    return latencies


def quantile(ordered: list[float], share: float) -> float:
    """Return the value that this share of the sorted values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
