"""Finds workers that send no heartbeat, or have grown too large.

Never replaces a worker: it marks them.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.log import get_logger
from picowsgi.process.members import ChildProcess, Member

_STACKS_TIME = 1.0  # seconds for a silent worker to write its stacks
_MEMORY_EVERY = 2.0  # seconds between two checks of the memory
_HELD_UP = 5.0  # seconds between two checks: this process did not run in between


class Watchdog:
    """Checks the workers each time that `check` is called."""

    def __init__(self, settings: Settings) -> None:
        self._silence_most = settings.timeout_worker or math.inf
        self._memory_most = settings.max_worker_rss
        self._looked: float | None = None
        self._weighed = -math.inf

    def check(self, members: Iterable[Member], now: float) -> None:
        """Mark the workers to replace, and set a time to kill those without a heartbeat."""
        workers = [one for one in members if isinstance(one, ChildProcess) and one.ready]
        if self._looked is not None and now - self._looked > _HELD_UP:
            for one in workers:
                one.last_heartbeat = now  # this process may not have read their heartbeats
        self._looked = now
        weighs = self._memory_most and now - self._weighed >= _MEMORY_EVERY
        if weighs:
            self._weighed = now
        for one in workers:
            if now - one.last_heartbeat > self._silence_most and not one.silent:
                self._give_up(one, now)
            if weighs and not one.needs_replacement and not one.program:
                memory = one.memory()
                if memory > self._memory_most:
                    one.needs_replacement = True
                    one.reason = core.RESTART_MEMORY
                    get_logger().info("worker %d has %d bytes in memory", one.pid, memory)

    def _give_up(self, one: ChildProcess, now: float) -> None:
        one.silent = True
        get_logger().error(
            "worker %d has sent no heartbeat for %.0f s and will be killed; "
            "its stacks follow if it can write them",
            one.pid,
            now - one.last_heartbeat,
        )
        one.signal(signal.SIGQUIT)
        one.kill_at = min(one.kill_at, now + _STACKS_TIME)
