"""The threads of one event loop, with a core that the test controls."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.threads import loop
from picowsgi.threads.loop import Loop
from picowsgi.wsgi.request_timeout import CAN_INTERRUPT, Guard
from support import TIMEOUT, wait_until

ACCESS = core.AccessOutput()
STOP = core.WATCH_STOP, 0


class StubCore:
    """A core whose watcher gets its tasks from the test."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.todo: queue.Queue[Any] = queue.Queue()
        self.failed = 0
        self.loans: dict[int, Any] = {}
        self.taken = 0

    def watch(self) -> tuple[int, int]:
        what = self.todo.get(timeout=TIMEOUT)
        if isinstance(what, BaseException):
            raise what
        found: tuple[int, int] = what
        return found

    def note_failed_thread(self) -> None:
        self.failed += 1

    def incidents(self) -> Iterator[Any]:
        self.taken += 1
        return iter(())


class StubGateway:
    """Serves until the test ends it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options
        self.release = threading.Event()
        self.thread = threading.current_thread()

    def run(self) -> None:
        hold(self.release)


def hold(release: threading.Event) -> None:
    release.wait(TIMEOUT)


class Site:
    """A loop with its threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.gateways: list[StubGateway] = []
        self.threads: list[threading.Thread] = []
        self.interrupted: list[tuple[int, Guard | None]] = []
        self.refusal: BaseException | None = None
        monkeypatch.setattr(core, "CoreServer", StubCore)
        monkeypatch.setattr(core, "CoreThread", lambda server, number: (server, number))
        monkeypatch.setattr(
            loop, "interrupt_application", lambda *what: self.interrupted.append(what)
        )
        self.loop = Loop(
            "name",
            "app",  # type: ignore[arg-type]
            [],
            replace(Settings(), **options),
            access=ACCESS,
            balance=None,
            metrics=None,
            common={},
            make_gateway=self.make_gateway,  # type: ignore[arg-type]
        )
        self.core: StubCore = self.loop.core  # type: ignore[assignment]

    def make_gateway(self, *arguments: Any, **options: Any) -> StubGateway:
        if self.refusal is not None:
            raise self.refusal
        self.gateways.append(StubGateway(*arguments, **options))
        return self.gateways[-1]

    def start_thread(self, name: str, target: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                target()
            except BaseException as error:
                thread.error = error  # type: ignore[attr-defined]

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.error = None  # type: ignore[attr-defined]
        self.threads.append(thread)
        thread.start()
        return thread

    def start(self) -> None:
        self.loop.start(self.start_thread)
        wait_until(lambda: self.gateways or not self.threads[0].is_alive(), "the first thread")

    def do(self, what: int, number: int = 0) -> None:
        self.core.todo.put((what, number))

    def end(self) -> None:
        for one in self.gateways:
            one.release.set()
        self.core.todo.put(STOP)
        for thread in self.threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(**options: Any) -> Site:
        made.append(Site(monkeypatch, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


Make = Callable[..., Site]


def names(site: Site) -> list[str]:
    return [thread.name for thread in site.threads]


def test_one_thread_serves_and_one_watches(site: Make) -> None:
    one = site(debug=True)
    one.start()
    assert names(one) == ["name-0", "picowsgi-watch"]
    (gateway,) = one.gateways
    assert gateway.arguments[:3] == ("app", (one.core, 0), [])
    assert gateway.options == {"debug": True}
    assert gateway.thread is one.threads[0]


def test_new_threads_get_the_next_numbers_and_those_of_ended_threads(site: Make) -> None:
    one = site()
    one.start()
    for count in (2, 3):
        one.do(core.WATCH_START)
        wait_until(lambda count=count: len(one.gateways) == count, "one more thread")
    assert [gateway.arguments[1][1] for gateway in one.gateways] == [0, 1, 2]
    one.gateways[1].release.set()
    one.gateways[1].thread.join(TIMEOUT)
    one.do(core.WATCH_START)
    wait_until(lambda: len(one.gateways) == 4, "a thread that replaces another")
    assert one.gateways[3].arguments[1][1] == 1
    assert one.gateways[3].thread.name == "name-1"
    one.do(core.WATCH_START)
    wait_until(lambda: len(one.gateways) == 5, "one more thread")
    assert one.gateways[4].arguments[1][1] == 3


def test_incidents_of_the_core_are_logged_on_request_and_at_the_end(site: Make) -> None:
    one = site()
    one.start()
    assert one.core.taken == 0
    one.do(core.WATCH_INCIDENT)
    wait_until(lambda: one.core.taken == 1, "a look at the incidents")
    one.gateways[0].release.set()
    wait_until(lambda: one.core.taken == 2, "a look at the end of a thread")
    assert len(one.gateways) == 1


@pytest.mark.parametrize("error", [RuntimeError("no room"), MemoryError("no room")])
def test_the_core_learns_about_a_thread_that_cannot_be_started(
    site: Make, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    one = site()
    one.start()

    def refuse(_name: str, _target: object) -> threading.Thread:
        raise error

    one.loop._act(refuse, core.WATCH_START, 0)
    assert one.core.failed == 1
    assert caplog.messages == [f"one more thread is needed but cannot be started: {error!r}"]


def test_a_thread_without_a_gateway_ends_and_the_first_one_stops_the_server(
    site: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = site()
    one.refusal = MemoryError("none left")
    one.start()
    assert one.threads[0].error is one.refusal  # type: ignore[attr-defined]
    other = site()
    other.start()
    other.refusal = MemoryError("none left")
    other.do(core.WATCH_START)
    wait_until(lambda: caplog.messages, "a line of the log")
    assert "one more thread is needed but cannot be started: MemoryError" in caplog.text
    wait_until(lambda: not other.threads[2].is_alive(), "the end of the thread")
    assert other.threads[2].error is None  # type: ignore[attr-defined]
    assert other.threads[1].is_alive()


def test_an_error_does_not_end_the_watcher(site: Make, caplog: pytest.LogCaptureFixture) -> None:
    one = site()
    one.start()
    for error in (ValueError("broken"), SystemExit("broken")):
        one.core.todo.put((core.WATCH_SLOW, 99))
        assert error
    one.do(core.WATCH_INCIDENT)
    wait_until(lambda: one.core.taken == 1, "the watcher to continue")
    assert caplog.messages == ["an error in the watcher thread, which continues"] * 2


# Requests that take too long


@pytest.mark.parametrize("what", [core.WATCH_SLOW, core.WATCH_STUCK])
def test_a_request_that_takes_too_long_is_logged_with_its_stack(
    site: Make, caplog: pytest.LogCaptureFixture, what: int
) -> None:
    one = site(timeout_request=2.5)
    one.start()
    one.do(what, 0)
    one.do(core.WATCH_INCIDENT)
    wait_until(lambda: one.core.taken == 1, "the watcher")
    (message,) = caplog.messages
    assert "in hold\n" in str(caplog.records[0].stack_info)
    stuck = what == core.WATCH_STUCK
    assert one.loop.is_stuck == stuck
    if stuck:
        assert message.startswith("a request of name-0 has not ended 2.5 s after its time was up;")
        assert one.interrupted == []
    elif CAN_INTERRUPT:
        assert message.startswith("a request of name-0 has run for 2.5 s and is interrupted at:")
        ident = one.threads[0].ident
        assert [number for number, _ in one.interrupted] == [ident]


def test_the_log_says_so_when_no_thread_can_be_interrupted(
    site: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CAN_INTERRUPT", False)
    one = site(timeout_request=2.0)
    one.start()
    one.do(core.WATCH_SLOW, 0)
    one.do(core.WATCH_INCIDENT)
    wait_until(lambda: one.core.taken == 1, "the watcher")
    assert "has run for 2 s; PyPy cannot interrupt it; it is at:\n" in caplog.text
    assert one.interrupted == []


def test_a_thread_that_has_ended_in_the_meantime_is_not_interrupted(
    site: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = site(timeout_request=2.0)
    one.start()
    one.gateways[0].release.set()
    one.threads[0].join(TIMEOUT)
    one.do(core.WATCH_STUCK, 0)
    one.do(core.WATCH_INCIDENT)
    wait_until(lambda: one.core.taken == 2, "the watcher")
    assert caplog.messages == []
    assert not one.loop.is_stuck


@pytest.mark.parametrize(
    ("timeout", "gil", "guarded"), [(2.0, True, False), (2.0, False, True), (0.0, False, False)]
)
def test_an_application_is_guarded_when_threads_are_parallel_and_have_a_limit(
    site: Make, monkeypatch: pytest.MonkeyPatch, timeout: float, gil: bool, guarded: bool
) -> None:
    monkeypatch.setattr(loop, "has_gil", lambda: gil)
    one = site(timeout_request=timeout)
    one.start()
    application = one.gateways[0].arguments[0]
    assert (type(application) is Guard) == guarded
    one.do(core.WATCH_SLOW, 0)
    one.do(core.WATCH_INCIDENT)
    wait_until(lambda: one.core.taken == 1, "the watcher")
    if CAN_INTERRUPT:
        assert [guard for _, guard in one.interrupted] == [application if guarded else None]


def test_threads_that_have_not_ended_are_named_with_their_stacks(
    site: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = site()
    one.start()
    one.do(core.WATCH_START)
    wait_until(lambda: len(one.gateways) == 2, "one more thread")
    one.gateways[0].release.set()
    one.gateways[0].thread.join(TIMEOUT)
    one.loop.log_stuck()
    (message,) = caplog.messages
    assert message == "name-1 has not ended and is left behind at:"
    assert "in hold\n" in str(caplog.records[0].stack_info)


def test_the_memory_is_divided_among_the_loops_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "has_gil", lambda: False)
    settings = Settings(loops=3, head_memory_total=100, body_memory_total=11)
    parts = loop.share_out(settings)
    assert [one.head_memory_total for one in parts] == [34, 33, 33]
    assert [one.body_memory_total for one in parts] == [4, 4, 3]
