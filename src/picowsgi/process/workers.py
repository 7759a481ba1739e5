"""Keeps the number of members that serve, and replaces members by new ones.

New members are always ready before the supervisor stops those that they replace. Never waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from picowsgi import core, log
from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError
from picowsgi.log import get_logger
from picowsgi.process.members import ChildProcess, Member
from picowsgi.process.respawn import Respawn
from picowsgi.process.watchdog import Watchdog

Spawn = Callable[[], Member]

_LOADING_TIME = 1.0  # seconds for a process that still loads the application


class Workers:
    """The members of one supervisor, kept at the number `target`.

    `spawn` starts one more member; None: no member can be started.
    """

    def __init__(
        self,
        settings: Settings,
        spawn: Spawn | None,
        target: int,
        on_exit: Callable[[int, int], object] = lambda _pid, _status: None,
        count_restart: Callable[[int], object] = lambda _reason: None,
    ) -> None:
        """`on_exit` is called with the process number and the status of each child that ends.

        `count_restart` is called with the reason for each member that is replaced
        (core.RESTART_EXIT and so on).
        """
        self._settings = settings
        self._on_exit = on_exit
        self._count_restart = count_restart
        self._spawn = spawn
        self._target = target
        #: The state before a reload, to go back to if the reload fails.
        self._before: tuple[Spawn | None, int] = (spawn, target)
        self._respawn = Respawn()
        self._watchdog = Watchdog(settings)
        self._reload_again: Callable[[], None] | None = None
        self.members: list[Member] = []
        #: `target` members have been ready at once.
        self.ready = False
        self.reloading = False
        #: The members will be stopped soon: see `warn`.
        self.warned = False
        self.stopping = False
        #: The reason why no process could load the application at the start.
        self.failure: AppImportError | None = None
        #: Called with the reason why a process could not load the application (--reload). If it is
        #: set, such a failure ends neither the server nor a reload.
        self.on_failure: Callable[[AppImportError], None] | None = None
        #: A member has ended unexpectedly, and nothing can replace it.
        self.failed = False

    @property
    def over(self) -> bool:
        """Whether no member is left, and none will be started."""
        return not self.members and (self.stopping or self.failed)

    def adopt(self, one: Member) -> None:
        """Add a member that exists already."""
        self.members.append(one)

    def processes(self) -> list[ChildProcess]:
        """Return the members that are child processes."""
        return [one for one in self.members if isinstance(one, ChildProcess)]

    def warn(self) -> None:
        """Make all members, and those that start later, answer health checks with 503."""
        self.warned = True

    def stop(self, now: float, *, others_accept: bool = False, within: float = math.inf) -> None:
        """Make all members drain, and end within `within` seconds. A repetition changes nothing.

        `others_accept`: a process that is not a member accepts from the same sockets.
        """
        self.stopping = True
        for one in self.members:
            self._dismiss(one, now, others_accept=others_accept)
            one.kill_at = min(one.kill_at, now + within)

    def stop_now(self, now: float, *, within: float) -> None:
        """Make all members end at once. Kill those that still run after `within` seconds."""
        self.stopping = True
        for one in self.members:
            one.stop_now()
            one.kill_at = min(one.kill_at, now + within)

    def kill(self) -> None:
        """End all members by force, and wait until they have ended."""
        self.stopping = True
        for one in self.members:
            one.kill()
            if isinstance(one, ChildProcess):
                one.has_ended(wait=True)
                self._on_exit(one.pid, one.status)
        self.members.clear()

    def change(self, by: int, now: float) -> None:
        """Add `by` to the number of members; the least number is 1."""
        self._target = max(1, self._target + by)
        get_logger().info("workers: %d", self._target)
        for one in self._staying()[: max(-self._missing(), 0)]:
            self._dismiss(one, now)

    def reload(self, spawn: Spawn | None = None, reason: int = core.RESTART_RELOAD) -> None:
        """Replace all members. With `spawn`, a single member from this function replaces them."""
        if self.reloading:
            self._reload_again = self.reload
            return
        get_logger().info("reloading")
        self._before = self._spawn, self._target
        if spawn is not None:
            self._spawn, self._target = spawn, 1
        self.reloading = True
        self._respawn.reset()
        for one in self.members:
            one.retiring = True
            one.reason = reason

    def restart(self, now: float) -> None:
        """Replace all members, and do not wait for the new ones. Open requests are finished."""
        self._respawn.reset()
        for one in self.members:
            if not one.stopping:
                self._count_restart(core.RESTART_RELOAD)
                self._dismiss(one, now)
                if not one.ready:
                    one.kill_at = min(one.kill_at, now + _LOADING_TIME)

    def wait_for(self, now: float) -> float:
        """Return the seconds until the next `step` is due, which may be infinite."""
        waits = [one.kill_at - now for one in self.members]
        if self.processes():
            waits.append(1.0)
        if not self.stopping and self._missing() > 0:
            waits.append(self._respawn.due - now)
        return max(0.0, min(waits, default=math.inf))

    def step(self, now: float) -> None:
        """Do the work that is due. Raises OSError if the first members cannot be started."""
        ended = [one for one in self.members if one.has_ended()]
        for one in self.members:
            if one.stopped_by_signal and not one.stopping and not self.stopping:
                get_logger().info("%s has been sent a signal to stop", one)
                self._count_restart(core.RESTART_SIGNAL)
                one.stopping = True
                self._limit(one, now)
        for one in ended:
            if one in self.members:  # no: the end of a member before it has ended all members
                self.members.remove(one)
                if isinstance(one, ChildProcess):
                    self._on_exit(one.pid, one.status)
                if not one.stopping and not self.stopping:
                    self._on_unexpected_exit(one, now)
        self._watchdog.check(self.members, now)
        if not self.stopping:
            self._keep_up(now)
        for one in self.members:
            if one.kill_at <= now:
                if not one.silent:
                    get_logger().error("%s did not end in time: its open requests are cut off", one)
                one.kill()

    def _keep_up(self, now: float) -> None:
        """Start and stop members until `target` of them serve."""
        for one in self.members:
            # A member that will be stopped soon needs no replacement.
            if one.needs_replacement and not (one.retiring or one.stopping or self.warned):
                get_logger().info("%s is to be replaced", one)
                one.retiring = True
        self._fill(now)
        self._settle(now)
        if self.warned:
            for one in self.members:
                one.warn()

    def _on_unexpected_exit(self, one: Member, now: float) -> None:
        """Handle the end of a member that should not have ended."""
        if not isinstance(one, ChildProcess):
            self.failed = True
            self.stop(now)
            return
        if one.ready:
            get_logger().error("%s %s", one, one.end)
            self._start_later(one, now)
            return
        failure = one.failure or AppImportError(
            f"{one} {one.end} before it had loaded the application"
        )
        if self.on_failure is not None:
            self.on_failure(failure)
            self._start_later(one, now)
        elif not self.ready:
            self.failure, self.failed = failure, True
            self.kill()
        elif self.reloading:
            log.log_failure(f"the reload has failed: {failure}", failure.application_traceback)
            self._give_reload_up(now)
        else:
            log.log_failure(f"a new worker cannot start: {failure}", failure.application_traceback)
            self._start_later(one, now)

    def _start_later(self, one: ChildProcess, now: float) -> None:
        """Let another worker replace one that has ended, after a pause."""
        self._respawn.failed(now)
        if one.silent:
            self._count_restart(core.RESTART_TIMEOUT)
        else:
            self._count_restart(core.RESTART_SIGNAL if one.status < 0 else core.RESTART_EXIT)

    def _give_reload_up(self, now: float) -> None:
        self.reloading = False
        self._reload_again = None
        self._spawn, self._target = self._before
        for one in self.members:
            if one.retiring:
                one.retiring = False
            elif not one.stopping:
                self._dismiss(one, now)

    def _fill(self, now: float) -> None:
        """Start the missing members."""
        while self._spawn is not None and self._missing() > 0 and self._respawn.due <= now:
            try:
                self.members.append(self._spawn())
            except OSError as error:
                if not self.ready:
                    raise
                get_logger().error("cannot start a process: %s", error)
                if self.reloading:
                    self._give_reload_up(now)
                else:
                    self._respawn.failed(now)
                return

    def _settle(self, now: float) -> None:
        """When `target` members are ready, stop the members that they replace."""
        if sum(one.ready for one in self._staying()) < self._target:
            return
        self.ready = True
        for one in self.members:
            if one.retiring and not one.stopping:
                self._count_restart(one.reason)
                self._dismiss(one, now)
        if self.reloading:
            self.reloading = False
            get_logger().info("reloaded")
            again, self._reload_again = self._reload_again, None
            if again is not None:
                again()

    def _staying(self) -> list[Member]:
        return [one for one in self.members if not one.retiring and not one.stopping]

    def _missing(self) -> int:
        return 0 if self._spawn is None else self._target - len(self._staying())

    def _dismiss(self, one: Member, now: float, *, others_accept: bool = True) -> None:
        one.stop(others_accept=others_accept)
        self._limit(one, now)

    def _limit(self, one: Member, now: float) -> None:
        limit = self._settings.timeout_graceful + one.extra_time
        one.kill_at = min(one.kill_at, now + limit)
