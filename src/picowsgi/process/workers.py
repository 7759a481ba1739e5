"""Those that serve: how many there are to be, and how some take the place of others.

New ones are always ready before the ones they replace are told to stop. Never waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from picowsgi import log
from picowsgi.config.settings import Settings
from picowsgi.errors import AppImportError
from picowsgi.log import get_logger
from picowsgi.process.members import ChildProcess, Member
from picowsgi.process.respawn import Respawn
from picowsgi.process.watchdog import Watchdog

Spawn = Callable[[], Member]

_LOADING_TIME = 1.0  # seconds for a process that cannot load the application


class Workers:
    """The servings of one process, kept at `target`; `spawn` makes one more, where any can be."""

    def __init__(
        self,
        settings: Settings,
        spawn: Spawn | None,
        target: int,
        on_exit: Callable[[int, int], object] = lambda _pid, _status: None,
    ) -> None:
        """`on_exit` is called with the number of each process that has ended, and its status."""
        self._settings = settings
        self._on_exit = on_exit
        self._spawn = spawn
        self._target = target
        #: What there was before a reload, for the case that it fails.
        self._before: tuple[Spawn | None, int] = (spawn, target)
        self._respawn = Respawn()
        self._watchdog = Watchdog(settings)
        self._reload_again: Callable[[], None] | None = None
        self.members: list[Member] = []
        #: All that are wanted have been ready once.
        self.ready = False
        self.reloading = False
        #: They will be stopped soon: see `warn`.
        self.warned = False
        self.stopping = False
        #: Why nothing could start.
        self.failure: AppImportError | None = None
        #: Told why a process could not load the application, where that ends nothing.
        self.on_failure: Callable[[AppImportError], None] | None = None
        #: Something has ended that was not to end, and cannot be replaced.
        self.failed = False

    @property
    def over(self) -> bool:
        """Whether nothing is left, and nothing will come."""
        return not self.members and (self.stopping or self.failed)

    def adopt(self, one: Member) -> None:
        """Take one in that exists already."""
        self.members.append(one)

    def processes(self) -> list[ChildProcess]:
        """Return those that are processes."""
        return [one for one in self.members if isinstance(one, ChildProcess)]

    def warn(self) -> None:
        """Make all of them, and those still to come, unready for health checks."""
        self.warned = True

    def stop(self, now: float, *, others_accept: bool = False, within: float = math.inf) -> None:
        """Have all of them drain and end, `within` so many seconds; a repetition changes nothing.

        `others_accept`: so does a process on the same sockets that is not one of them.
        """
        self.stopping = True
        for one in self.members:
            self._dismiss(one, now, others_accept=others_accept)
            one.kill_at = min(one.kill_at, now + within)

    def stop_now(self, now: float, *, within: float) -> None:
        """Have all of them end at once, and kill those that have not `within` so many seconds."""
        self.stopping = True
        for one in self.members:
            one.stop_now()
            one.kill_at = min(one.kill_at, now + within)

    def kill(self) -> None:
        """End all of them by force, and wait until they have ended."""
        self.stopping = True
        for one in self.members:
            one.kill()
            if isinstance(one, ChildProcess):
                one.has_ended(wait=True)
                self._on_exit(one.pid, one.status)
        self.members.clear()

    def change(self, by: int, now: float) -> None:
        """Have so many more, or less, but one."""
        self._target = max(1, self._target + by)
        get_logger().info("workers: %d", self._target)
        for one in self._staying()[: max(-self._missing(), 0)]:
            self._dismiss(one, now)

    def reload(self, spawn: Spawn | None = None) -> None:
        """Replace all of them; `spawn`: by a single one that it makes, from now on."""
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

    def restart(self, now: float) -> None:
        """Replace all of them, without waiting for the new; they finish what they have begun."""
        self._respawn.reset()
        for one in self.members:
            if not one.stopping:
                self._dismiss(one, now)
                if not one.ready:
                    one.kill_at = min(one.kill_at, now + _LOADING_TIME)

    def wait_for(self, now: float) -> float:
        """Return for how many seconds nothing is due; it may be infinite."""
        waits = [one.kill_at - now for one in self.members]
        if self.processes():
            waits.append(1.0)
        if not self.stopping and self._missing() > 0:
            waits.append(self._respawn.due - now)
        return max(0.0, min(waits, default=math.inf))

    def step(self, now: float) -> None:
        """Do what is due. Raises OSError where none could ever be started."""
        ended = [one for one in self.members if one.has_ended()]
        for one in self.members:
            if one.stopped_by_signal and not one.stopping and not self.stopping:
                get_logger().info("%s has been sent a signal to stop", one)
                one.stopping = True
                self._limit(one, now)
        for one in ended:
            if one in self.members:  # else the end of one before has ended all
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
        """Have as many serve as are wanted."""
        for one in self.members:
            # What is to be stopped soon needs nobody in its place.
            if one.needs_replacement and not (one.retiring or one.stopping or self.warned):
                get_logger().info("%s is to be replaced", one)
                one.retiring = True
        self._fill(now)
        self._settle(now)
        if self.warned:
            for one in self.members:
                one.warn()

    def _on_unexpected_exit(self, one: Member, now: float) -> None:
        """One has ended by an accident."""
        if not isinstance(one, ChildProcess):
            self.failed = True
            self.stop(now)
            return
        if one.ready:
            get_logger().error("%s %s", one, one.end)
            self._respawn.failed(now)
            return
        failure = one.failure or AppImportError(
            f"{one} {one.end} before it had loaded the application"
        )
        if self.on_failure is not None:
            self.on_failure(failure)
            self._respawn.failed(now)
        elif not self.ready:
            self.failure, self.failed = failure, True
            self.kill()
        elif self.reloading:
            log.log_failure(f"nothing is reloaded: {failure}", failure.application_traceback)
            self._give_reload_up(now)
        else:
            log.log_failure(f"no new worker: {failure}", failure.application_traceback)
            self._respawn.failed(now)

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
        """Start those that are missing."""
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
        """Once all that are wanted are ready, those whose place they take may go."""
        if sum(one.ready for one in self._staying()) < self._target:
            return
        self.ready = True
        for one in self.members:
            if one.retiring and not one.stopping:
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
