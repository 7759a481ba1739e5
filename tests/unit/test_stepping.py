"""Requests one after the other, and the data about each response; the core records its calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest

from picowsgi import core
from picowsgi.wsgi.environ import SharedState
from picowsgi.wsgi.response import Response
from picowsgi.wsgi.stepping import SteppingGateway

TEXT = [("Content-Type", "text/plain"), ("X-A", "a: b")]


class Recorded(Response):
    """A response that records its parts."""

    __slots__ = ()

    @staticmethod
    def send_first(site: Site, *arguments: Any) -> int:
        site.calls.append(("first", arguments[5]))
        return 0

    @staticmethod
    def send_data(site: Site, *arguments: Any) -> int:
        site.calls.append(("data", arguments[1]))
        return 0

    @staticmethod
    def is_detached(_site: Site, _exchange: int) -> int:
        return 0

    @staticmethod
    def current_exchange(_site: Site) -> int:
        return 7


class RecordedGateway(SteppingGateway):
    response = Recorded


class Site:
    """A serving thread of the core, and a gateway that returns after each request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        self.numbers: list[int] = []
        self.unsent = 0
        self.state = 99
        note = self.calls.append
        self.request = SimpleNamespace(exchange=7, lends=0, block_size=0, listener=0, sent=42)

        def respond(_site: Site, _head: bytes, _size: int, body: bytes, *more: int) -> int:
            note(("whole", body, more[-1]))
            return core.IDLE

        def wait(_site: Site, milliseconds: int) -> int:
            note(("wait", milliseconds))
            return self.numbers.pop(0) if self.numbers else core.IDLE

        def settle(_site: Site, milliseconds: int) -> int:
            note(("settle", milliseconds))
            return self.unsent

        for name, stub in {
            "respond": respond,
            "next_request_within": wait,
            "settle": settle,
            "next_news": lambda _site: note("news") or -1,
            "content_missing": lambda _site: 0,
            "send_end": lambda _site, cut: note(("end", cut)),
            "request_state": lambda _site: self.state,
        }.items():
            monkeypatch.setattr(core, name, stub)
        thread: Any = SimpleNamespace(
            pointer=self, request=self.request, block=b"", block_size=[0], owner=ref(self)
        )
        self.kept = SharedState(SimpleNamespace(loans={}))  # type: ignore[arg-type]
        self.kept.templates[128] = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/a"}
        self.gateway = RecordedGateway(None, thread, [{}], self.kept, core.CLOSE)  # type: ignore[arg-type]

    def step(self, application: Any) -> bool:
        self.numbers = [128]
        self.gateway.application = application
        return self.gateway.step(250)

    @property
    def seen(self) -> tuple[str, list[tuple[str, str]], int]:
        return self.gateway.status, self.gateway.headers, self.gateway.sent


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


def answering(result: Any, status: str = "201 Made") -> Any:
    def application(_environ: Any, start_response: Any) -> Any:
        start_response(status, TEXT)
        return result

    return application


def test_a_step_without_a_request_waits_once(site: Site) -> None:
    assert not site.gateway.step(250)
    assert site.calls == ["news", ("wait", 250)]


def test_a_step_serves_one_request_and_returns(site: Site) -> None:
    assert site.step(answering([b"abc"]))
    flags = core.ADD_DATE | core.ADD_SERVER | core.RETURN | core.CLOSE
    assert site.calls == ["news", ("wait", 250), ("whole", b"abc", flags)]
    assert site.seen == ("201 Made", TEXT, 42)


def test_a_response_in_parts_is_recorded_and_ended(site: Site) -> None:
    site.step(answering(iter([b"a", b"b"])))
    assert site.calls[2:] == [("first", b"a"), ("data", b"b"), ("end", False)]
    assert site.seen == ("201 Made", TEXT, 42)


def test_an_error_is_recorded_with_the_response_to_it(site: Site) -> None:
    site.step(answering([b"a"]))
    assert site.step(lambda _environ, _start: 1 / 0)
    status, headers, _ = site.seen
    assert status == "500 Internal Server Error"
    assert headers == [("Content-Type", "text/plain; charset=utf-8")]

    def late(_environ: Any, start_response: Any) -> Any:
        start_response("201 Made", TEXT)(b"a")
        raise KeyError

    site.step(late)
    assert site.calls[-1] == ("end", True)
    assert site.gateway.status == "201 Made"


def test_before_the_first_response_the_status_is_that_of_a_failure(site: Site) -> None:
    assert site.gateway.status == "500 Internal Server Error"


def test_a_response_is_over_after_its_step(site: Site) -> None:
    kept: list[Any] = []

    def application(_environ: Any, start_response: Any) -> Any:
        kept.append(start_response("201 Made", TEXT))
        return iter([b"a"])

    site.step(application)
    with pytest.raises(ValueError, match="after the end"):
        kept[0](b"late")


@pytest.mark.parametrize("error", [MemoryError, ValueError])
def test_an_error_of_the_server_also_completes_a_step(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(_number: int) -> Any:
        raise error

    monkeypatch.setattr(site.gateway.environs, "make", fail)
    site.state = core.REQUEST_BEGUN
    assert site.step(answering([b"a"]))
    assert site.calls[-1] == ("end", True)


def test_an_interrupt_reaches_the_caller_and_ends_the_request(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_number: int) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(site.gateway.environs, "make", interrupt)
    site.state = core.REQUEST_BEGUN
    with pytest.raises(KeyboardInterrupt):
        site.step(answering([b"a"]))
    assert site.calls[-1] == ("end", True)


def test_a_request_may_have_the_number_0(site: Site) -> None:
    site.kept.templates[0] = dict(site.kept.templates[128])
    site.numbers = [0]
    site.gateway.application = answering([b"a"])
    assert site.gateway.step(1)


@pytest.mark.parametrize(("unsent", "settled"), [(0, True), (3, False)])
def test_settle_waits_until_all_bytes_are_sent(site: Site, unsent: int, settled: bool) -> None:
    site.unsent = unsent
    assert site.gateway.settle(100) is settled
    assert site.calls == [("settle", 100), "news"]
