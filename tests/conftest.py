"""Fixtures for all tests with a running server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from support import TIMEOUT

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from picowsgi import Server

Serve = Callable[..., "Server"]

# A shell may ignore a signal for this process (nohup, or a job in the background). The processes
# that the tests start would inherit that.
for _number, _handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

_CURRENT = "PYTEST_CURRENT_TEST"
_AGAIN = 2  # how often a measurement is repeated after it missed its bound


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Repeat a measurement that other programs may have disturbed, but not three times."""
    for item in items:
        if item.get_closest_marker("measured"):
            item.add_marker(pytest.mark.flaky(reruns=_AGAIN))


@pytest.fixture(autouse=True)
def _environ() -> Iterator[None]:
    """Restore the environment: the command sets variables for the application, as FLASK_DEBUG."""
    before = dict(os.environ)
    yield
    own = os.environ.get(_CURRENT)  # pytest changes it
    if own is not None:
        before[_CURRENT] = own
    if before != dict(os.environ):
        os.environ.clear()
        os.environ.update(before)


def _start(stack: ExitStack, app: WSGIApplication, options: dict[str, Any]) -> Server:
    """Start a server. Leaving `stack` stops it and checks that its threads have ended."""
    from picowsgi import Server

    server = Server(app, **{"port": 0, **options})
    server.start()
    pool = server._pool
    assert pool is not None

    def stop() -> None:
        threads = list(pool._threads)  # its own: other servers of this process start threads too
        server.stop()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), f"expected {thread.name} to end with its server"

    stack.callback(stop)
    return server


def _factory() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda app, **options: _start(stack, app, options)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(app, **options)` starts a server on a free port; it stops after the test."""
    yield from _factory()


@pytest.fixture(scope="module")
def serve_module() -> Iterator[Serve]:
    """The same as `serve`, but the servers run until the tests of the module have ended."""
    yield from _factory()
