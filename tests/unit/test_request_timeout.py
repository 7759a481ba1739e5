"""The code around an application that may be interrupted, without a server."""

from __future__ import annotations

import io
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from picowsgi.errors import RequestTimeoutError
from picowsgi.wsgi.request_timeout import (
    CAN_INTERRUPT,
    Guard,
    calls_application,
    interrupt_application,
)
from picowsgi.wsgi.response import FileWrapper
from support import TIMEOUT


def test_a_guarded_application_can_call_start_response_with_any_arguments() -> None:
    called: list[tuple[object, ...]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: object, exc_info: object = None) -> object:
        called.append((status, headers, exc_info))
        return written.append

    def application(_environ: object, start: object) -> list[bytes]:
        start("200 OK", [])(b"a")  # type: ignore[operator]
        start("200 OK", [], "error")  # type: ignore[operator]
        start("200 OK", [], exc_info="error")  # type: ignore[operator]
        start(status="200 OK", headers=[])  # type: ignore[operator]
        return [b"b"]

    guarded = Guard(application)  # type: ignore[arg-type]
    assert guarded({}, start_response) == [b"b"]  # type: ignore[arg-type]
    error = ("200 OK", [], "error")
    assert called == [("200 OK", [], None), error, error, ("200 OK", [], None)]
    assert written == [b"a"]


# Where a thread is


class Request:
    """A thread in the middle of a request, and the exception that ends it."""

    def __init__(self, call: Callable[[Callable[[], None]], object]) -> None:
        self.inside, self.error = threading.Event(), None
        self._over = threading.Event()
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.inside.wait(TIMEOUT)

    def _run(self) -> None:
        try:
            self._call(self.wait)
        except BaseException as error:
            self.error: BaseException | None = error

    def wait(self) -> None:
        """Stand for an application that takes long."""
        self.inside.set()
        while not self._over.is_set():
            time.sleep(0.001)

    def interrupt(self, guard: Guard | None = None) -> BaseException | None:
        """Interrupt it, let it end, and return its error."""
        interrupt_application(self._thread.ident or 0, guard)
        self._over.set()
        self._thread.join(TIMEOUT)
        return self.error


def named(name: str, code: str) -> dict[str, Any]:
    """The names of a module with this name."""
    names: dict[str, Any] = {"__name__": name}
    exec(textwrap.dedent(code), names)
    return names


SERVER = """
    def serve(application, wait):
        application(wait)

    def other(application, wait):
        application(wait)
"""
APPLICATION = """
    def application(wait):
        wait()
"""


@pytest.fixture
def server() -> dict[str, Any]:
    """Functions of the server: `serve` calls the application."""
    names = named("picowsgi.of.the.tests", SERVER)
    calls_application(names["serve"])
    return names


@pytest.mark.skipif(not CAN_INTERRUPT, reason="PyPy cannot interrupt a thread")
@pytest.mark.parametrize("module", ["app", "picowsgi.app.mount", "picowsgi.contrib.x", "picowsgi2"])
def test_an_application_is_interrupted(server: dict[str, Any], module: str) -> None:
    application = named(module, APPLICATION)["application"]
    one = Request(lambda wait: server["serve"](application, wait))
    assert type(one.interrupt()) is RequestTimeoutError


@pytest.mark.skipif(not CAN_INTERRUPT, reason="PyPy cannot interrupt a thread")
def test_the_code_of_the_server_is_not_interrupted(server: dict[str, Any]) -> None:
    application = named("app", APPLICATION)["application"]
    ours = named("picowsgi.wsgi.x", APPLICATION)["application"]
    assert Request(lambda wait: server["other"](application, wait)).interrupt() is None
    assert Request(lambda wait: server["serve"](ours, wait)).interrupt() is None
    assert Request(lambda wait: application(wait)).interrupt() is None


@pytest.mark.skipif(not CAN_INTERRUPT, reason="PyPy cannot interrupt a thread")
def test_a_thread_that_is_in_the_server_at_that_moment_is_not_interrupted(
    server: dict[str, Any],
) -> None:
    spin = named("picowsgi.of.the.tests", "def spin(go):\n    while not go: pass")
    calls_application(spin["spin"])
    go: list[int] = []
    caught: list[BaseException] = []

    def run() -> None:
        try:
            spin["spin"](go)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    interrupt_application(thread.ident or 0, None)
    go.append(1)
    thread.join(TIMEOUT)
    assert caught == []
    interrupt_application(thread.ident or 0, None)  # of a thread that has ended
    assert server


@pytest.mark.skipif(not CAN_INTERRUPT, reason="PyPy cannot interrupt a thread")
def test_the_interruption_waits_for_an_application_that_returns(server: dict[str, Any]) -> None:
    application = named("app", APPLICATION)["application"]
    guard = Guard(lambda _environ, _start: [])
    one = Request(lambda wait: server["serve"](application, wait))
    done = threading.Event()

    def interrupt() -> None:
        one.interrupt(guard)
        done.set()

    with guard.lock:
        threading.Thread(target=interrupt, daemon=True).start()
        assert not done.wait(0.05)
    assert done.wait(TIMEOUT)
    assert type(one.error) is RequestTimeoutError
    assert not guard.lock.locked()


# The wrapper of an application


class Counted(Guard):
    """A guard that counts how often its application is left."""

    left = 0

    def leave(self) -> None:
        self.left += 1
        super().leave()


def guarded(result: Any) -> tuple[Counted, Any]:
    guard = Counted(lambda _environ, _start: result)
    return guard, guard({}, lambda *_: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("result", [[b"a"], (b"a",), FileWrapper(io.BytesIO())])
def test_a_result_that_needs_no_more_of_the_application_is_returned_as_it_is(result: Any) -> None:
    guard, found = guarded(result)
    assert found is result
    assert guard.left == 1


def test_each_step_of_an_iterable_leaves_the_application() -> None:
    closed: list[int] = []

    class Items:
        def __iter__(self) -> Any:
            return iter([b"a", b"b"])

        def close(self) -> None:
            closed.append(1)

    guard, found = guarded(Items())
    assert list(found) == [b"a", b"b"]
    assert guard.left == 1 + 1 + 3
    found.close()
    assert (closed, guard.left) == ([1], 6)
    guard, found = guarded(iter([b"a"]))
    found.close()
    assert guard.left == 2, "expected an iterable without close() to be closed, too"


def test_an_error_also_leaves_the_application() -> None:
    class Items:
        def __iter__(self) -> Any:
            raise KeyError

        close = __iter__

    guard, found = guarded(Items())
    for step in (lambda: iter(found), found.close):
        with pytest.raises(KeyError):
            step()
    assert guard.left == 3

    def fail(_environ: object, _start: object) -> Any:
        raise KeyError

    guard = Counted(fail)
    with pytest.raises(KeyError):
        guard({}, lambda *_: None)  # type: ignore[arg-type,return-value]
    assert guard.left == 1


def test_start_response_and_write_leave_the_application_first() -> None:
    order: list[str] = []

    class Noted(Guard):
        def leave(self) -> None:
            order.append("leave")

    def start_response(*_arguments: Any) -> Any:
        order.append("start_response")
        return lambda _data: order.append("write")

    def application(_environ: object, start: Any) -> list[bytes]:
        start("200 OK", [])(b"a")
        return []

    Noted(application)({}, start_response)
    assert order == ["leave", "start_response", "leave", "write", "leave"]
