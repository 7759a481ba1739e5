"""One request through the application and back, with a core that records its calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest

from picowsgi import core
from picowsgi.errors import ClientGoneError, ResponseError
from picowsgi.wsgi import gateway as module
from picowsgi.wsgi.environ import SharedState
from picowsgi.wsgi.gateway import Gateway, client_disconnected, early_hints
from picowsgi.wsgi.response import FileWrapper, Response
from support import PYPY, TIMEOUT

TEXT = [("Content-Type", "text/plain")]
REQUEST = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/a"}
LARGE = b"x" * (core.COPY_MOST + 1)

Application = Callable[[dict[str, Any], Any], Any]


class Recorded(Response):
    """A response that records its parts."""

    __slots__ = ()

    def __init__(self, site: Site, encode: Any) -> None:
        super().__init__(site, encode)
        site.made += 1

    @staticmethod
    def send_first(site: Site, *arguments: Any) -> int:
        site.calls.append(("first", arguments[5], arguments[7]))
        return site.outcome

    @staticmethod
    def send_data(site: Site, *arguments: Any) -> int:
        site.calls.append(("data", arguments[1], arguments[3]))
        return site.outcome

    @staticmethod
    def check_client(site: Site, _exchange: int) -> int:
        return site.outcome

    @staticmethod
    def current_exchange(site: Site) -> int:
        return site.exchange


class RecordedGateway(Gateway):
    response = Recorded


class Site:
    """A serving thread of the core, and a gateway on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        self.made = 0  # responses
        self.outcome = 0
        self.missing = 0
        self.exchange = 7
        self.answer = core.IDLE  # to a response as a whole
        self.numbers: list[int] = []
        self.state = 0
        self.request = SimpleNamespace(exchange=7, lends=0, block_size=0, listener=0)
        self.loans: dict[int, Any] = {}
        note = self.calls.append

        def respond(_site: Site, head: bytes, size: int, body: Any, length: int, flags: int) -> int:
            assert (len(head), len(body)) == (size, length)
            note(("whole", head.split(b"\r\n")[0][9:], bytes(body), flags))
            return self.answer

        def finish(_site: Site, cut: bool) -> int:
            note(("finish", cut))
            return core.STOP

        def next_request(_site: Site) -> int:
            note("next")
            return self.numbers.pop(0) if self.numbers else core.STOP

        for name, stub in {
            "respond": respond,
            "finish": finish,
            "next_request": next_request,
            "next_news": lambda _site: -1,
            "content_missing": lambda _site: self.missing,
            "send_end": lambda _site, cut: note(("end", cut)),
            "request_state": lambda _site: self.state,
            "send_file": self.send_file,
            "send_interim": lambda _site, head, size: note(("interim", head, size)),
            "client_gone": lambda _site: self.outcome,
        }.items():
            monkeypatch.setattr(core, name, stub)
        self.thread = SimpleNamespace(
            pointer=self, request=self.request, block=b"", block_size=[0], owner=ref(self)
        )
        self.kept = SharedState(SimpleNamespace(loans=self.loans))  # type: ignore[arg-type]
        self.gateway: Gateway = RecordedGateway(None, self.thread, [{}], self.kept)  # type: ignore[arg-type]

    def send_file(self, _site: Site, descriptor: int, offset: int, size: int) -> int:
        data = os.pread(descriptor, size, offset)
        self.calls.append(("file", data))
        return self.outcome

    def serve(self, application: Application) -> int:
        self.gateway.application = application
        return self.gateway.serve(dict(REQUEST))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(monkeypatch)


def answering(result: Any, *headers: tuple[str, str]) -> Application:
    def application(_environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [*TEXT, *headers])
        return result

    return application


ADDED = core.ADD_DATE | core.ADD_SERVER
FAILED = ("whole", b"500 Internal Server Error", b"Internal Server Error\n", ADDED)


# Complete responses


@pytest.mark.parametrize("result", [[b"abc"], (b"abc",)])
@pytest.mark.parametrize("length", [(), (("Content-Length", "3"),)])
def test_one_piece_is_sent_as_a_whole_response(site: Site, result: Any, length: Any) -> None:
    site.answer = 42
    assert site.serve(answering(result, *length)) == 42
    flags = ADDED | core.HAS_LENGTH if length else ADDED
    assert site.calls == [("whole", b"200 OK", b"abc", flags)]


@pytest.mark.parametrize("result", [[], (), [b""]])
def test_no_content_is_sent_as_a_whole_response(site: Site, result: Any) -> None:
    site.serve(answering(result))
    assert site.calls == [("whole", b"200 OK", b"", ADDED)]


@pytest.mark.parametrize("result", [[b"abc", b"d"], [bytearray(b"abc")], iter([b"abc"])])
def test_any_other_content_is_sent_in_parts(site: Site, result: Any) -> None:
    number = site.serve(answering(result))
    assert number < 0
    assert site.calls[0][0] == "first"
    assert "whole" not in [call[0] for call in site.calls]


def test_a_piece_whose_length_differs_from_content_length_is_sent_in_parts(site: Site) -> None:
    site.missing = 1
    site.serve(answering([b"abc"], ("Content-Length", "4")))
    assert site.calls == [("first", b"abc", core.FINISHED)]


def test_the_items_of_a_list_are_sent_without_a_copy_and_those_of_an_iterable_with_one(
    site: Site,
) -> None:
    site.serve(answering([b"a", bytearray(b"b")]))
    assert site.calls == [("first", b"a", core.FINISHED), ("data", b"b", core.FINISHED)]
    del site.calls[:]
    site.serve(answering(iter([b"a", b"b"])))
    assert site.calls == [("first", b"a", 0), ("data", b"b", 0)]


def test_a_list_that_makes_its_items_itself_counts_as_an_iterable(site: Site) -> None:
    class Own(list[bytes]):
        def __iter__(self) -> Any:
            return iter([b"own", b"items"])

    site.serve(answering(Own([b"a", b"b"])))
    assert site.calls == [("first", b"own", 0), ("data", b"items", 0)]
    del site.calls[:]

    class Plain(list[bytes]):
        pass

    site.serve(answering(Plain([b"a"])))
    assert site.calls == [("first", b"a", core.FINISHED)]


def test_the_gateway_asks_for_no_item_that_it_does_not_send(site: Site) -> None:
    asked: list[int] = []

    def items() -> Iterable[bytes]:
        for number in range(5):
            asked.append(number)
            yield b"x"

    site.outcome = core.UNWANTED
    site.serve(answering(items()))
    assert asked == [0]
    del site.calls[:]
    site.serve(answering([b"a", b"b", b"c"]))
    assert len(site.calls) == 1


def test_a_response_without_items_begins_at_its_end(site: Site) -> None:
    site.serve(answering(iter(())))
    assert site.calls == [("first", b"", 0)]


# Lending


@pytest.mark.skipif(PYPY, reason="there the core borrows a pin")
def test_only_large_pieces_are_lent(site: Site) -> None:
    small = b"x" * core.COPY_MOST
    site.serve(answering([small]))
    site.serve(answering([small, small]))
    assert (site.request.lends, site.loans) == (0, {})
    site.serve(answering([LARGE]))
    assert site.request.lends == 1
    owner, (piece, before) = site.loans[7]
    assert (owner(), before) == (site, None)
    assert piece is LARGE


@pytest.mark.skipif(PYPY, reason="there the core borrows a pin")
def test_the_large_pieces_of_a_list_are_lent_together_and_earlier_loans_stay(
    site: Site,
) -> None:
    other = LARGE + b"y"
    site.loans[7] = "earlier"
    site.serve(answering([LARGE, b"small", other]))
    _, (pieces, before) = site.loans[7]
    assert pieces == [LARGE, other]
    assert pieces[0] is LARGE
    assert before == "earlier"


# Lengths


def test_more_content_than_announced_cuts_the_connection(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.outcome = core.OVERFLOW
    number = site.serve(answering(iter([b"abcdef"]), ("Content-Length", "3")))
    site.gateway._run(number)
    assert ("finish", True) in site.calls
    assert caplog.messages == [
        "the application sent more content than its Content-Length says; the rest is cut: GET /a"
    ]


def test_less_content_than_announced_cuts_the_connection(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.missing = 1
    site.gateway._run(site.serve(answering(iter([b"abc"]), ("Content-Length", "4"))))
    assert ("finish", True) in site.calls
    assert caplog.messages == [
        "the application sent 1 bytes less than its Content-Length says: GET /a"
    ]


@pytest.mark.parametrize(("outcome", "missing"), [(core.COMPLETE, 5), (0, 0), (0, -1)])
def test_as_much_content_as_announced_keeps_the_connection(
    site: Site, caplog: pytest.LogCaptureFixture, outcome: int, missing: int
) -> None:
    site.outcome, site.missing = outcome, missing
    site.gateway._run(site.serve(answering(iter([b"abc"]))))
    assert ("finish", False) in site.calls
    assert caplog.messages == []


# Files


def test_a_file_is_sent_from_its_position(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    site.outcome = core.COMPLETE
    with path.open("rb") as file:
        file.read(3)
        site.serve(answering(FileWrapper(file)))
        assert site.calls == [("first", b"", 0), ("file", b"tent")]
        assert site.gateway._response.head.length == 4  # type: ignore[union-attr]
    assert file.closed


def test_a_file_whose_position_is_after_its_end_is_empty(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        file.seek(100)
        site.outcome = core.COMPLETE
        site.serve(answering(FileWrapper(file)))
        assert site.gateway._response.head.length == 0  # type: ignore[union-attr]


def test_a_length_of_the_application_is_not_changed(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    site.outcome = core.COMPLETE
    site.serve(answering(FileWrapper(path.open("rb")), ("Content-Length", "2")))
    assert site.gateway._response.head.length == 2  # type: ignore[union-attr]


def test_a_file_that_the_core_refuses_is_read(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    site.outcome = core.REFUSED
    site.serve(answering(FileWrapper(path.open("rb"))))
    assert site.calls[-1] == ("data", b"content", 0)


def test_a_client_that_disconnects_during_a_file_is_no_error(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")

    def application(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", TEXT)(b"a")
        site.outcome = core.GONE
        return FileWrapper(path.open("rb"))

    site.gateway._run(site.serve(application))
    assert site.calls[-1] == ("finish", True)
    assert caplog.messages == []


# Errors


def test_an_error_is_logged_and_answered(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def application(_environ: Any, _start_response: Any) -> Any:
        raise KeyError("wrong")

    site.answer = 5
    assert site.serve(application) == 5
    assert site.calls == [FAILED]
    assert caplog.messages == ["error in the application: GET /a"]
    assert caplog.records[0].exc_info[0] is KeyError  # type: ignore[index]


def test_an_error_after_the_first_content_cuts(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []

    class Items:
        def __iter__(self) -> Any:
            yield b"a"
            raise KeyError("wrong")

        def close(self) -> None:
            closed.append("closed")

    site.gateway._run(site.serve(answering(Items())))
    assert site.calls[-1] == ("finish", True)
    assert closed == ["closed"]
    assert caplog.messages == ["error in the application: GET /a"]


def test_an_iterable_is_closed_once_and_an_error_in_close_changes_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []

    class Items(list[bytes]):
        def close(self) -> None:
            closed.append("closed")
            raise KeyError("wrong")

    site.gateway._run(site.serve(answering(Items([b"a"]))))
    assert closed == ["closed"]
    assert site.calls[-1] == ("finish", False)
    assert caplog.messages == ["error in close(): GET /a"]


def test_a_disconnected_client_is_no_error(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "picowsgi")
    site.outcome = core.GONE
    site.gateway._run(site.serve(answering(iter([b"a"]))))
    assert site.calls[-1] == ("finish", True)
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("DEBUG", "the client has gone: GET /a")
    ]


def test_an_application_that_does_not_begin_a_response_fails(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for result in ([b"a"], [], iter([b"a"])):
        del site.calls[:]
        site.serve(lambda _environ, _start, result=result: result)  # type: ignore[misc]
        assert site.calls == [FAILED]
    assert {*caplog.messages} == {"error in the application: GET /a"}


def test_the_error_page_itself_may_fail(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_environ: Any, _error: BaseException) -> Any:
        raise ValueError("the page")

    site.gateway._make_page = fail
    site.serve(lambda _environ, _start: 1 / 0)
    assert site.calls == [FAILED]
    assert caplog.messages[-1] == "error in the page for an error: GET /a"


def test_only_debug_shows_a_page_with_the_traceback(site: Site) -> None:
    debugging = RecordedGateway(
        lambda _environ, _start: 1 / 0,  # type: ignore[arg-type,return-value]
        site.thread,  # type: ignore[arg-type]
        [{}],
        site.kept,
        debug=True,
    )
    debugging.serve(dict(REQUEST))
    ((_, status, body, _),) = site.calls
    assert status == b"500 Internal Server Error"
    assert b"ZeroDivisionError" in body


def test_a_failing_log_does_not_end_the_thread(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[BaseException] = []
    monkeypatch.setattr(site.gateway, "_note", noted.append)

    class Broken:
        def error(self, *_arguments: Any, **_more: Any) -> None:
            raise KeyboardInterrupt

        critical = error

    monkeypatch.setattr(module, "get_logger", Broken)
    site.serve(lambda _environ, _start: 1 / 0)
    assert site.calls == [FAILED]
    assert [type(error) for error in noted] == [ZeroDivisionError, KeyboardInterrupt]
    site.gateway._recover(ValueError())
    assert type(noted[-1]) is KeyboardInterrupt


# Threads of the application during the request


def test_earlier_content_from_another_thread_makes_parts(site: Site) -> None:
    site.answer = core.STARTED
    site.missing = 0
    number = site.serve(answering([b"abc"]))
    assert site.calls[0][0] == "whole"
    assert [call[0] for call in site.calls[1:]] == ["first"]
    assert number < 0


def test_an_error_after_a_write_of_another_thread_cuts(site: Site) -> None:
    site.answer = core.STARTED
    site.gateway._run(site.serve(lambda _environ, _start: 1 / 0))
    assert site.calls == [FAILED, ("finish", True)]


def test_a_write_before_the_end_counts_as_the_response(site: Site) -> None:
    def application(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", TEXT)(b"a")
        return [b"b"]

    site.serve(application)
    assert site.calls == [("first", b"a", 0), ("data", b"b", core.FINISHED)]


def test_a_response_object_that_the_application_keeps_is_not_used_again(site: Site) -> None:
    kept: list[Any] = []

    def keeping(_environ: Any, start_response: Any) -> Any:
        kept.append(start_response("200 OK", TEXT))
        return [b"a"]

    site.serve(keeping)
    site.serve(answering([b"b"]))
    assert site.made == 2
    with pytest.raises(ResponseError):
        kept[0](b"late")


@pytest.mark.skipif(PYPY, reason="PyPy does not count references")
def test_a_response_object_is_used_again_unless_it_was_sent_in_parts(site: Site) -> None:
    site.serve(answering([b"a"]))
    site.serve(answering([b"b"]))
    assert site.made == 1
    assert [call[2] for call in site.calls] == [b"a", b"b"]
    site.serve(answering(iter([b"c"])))
    assert site.made == 1
    site.serve(answering([b"d"]))
    assert site.made == 2


# The loop of a serving thread


def test_a_thread_serves_until_the_server_stops(site: Site) -> None:
    site.numbers = [core.IDLE, 64, core.STOP]
    site.kept.templates[64] = dict(REQUEST)
    site.gateway.application = answering([b"a"])
    site.gateway.run()
    assert site.calls == ["next", "next", ("whole", b"200 OK", b"a", ADDED), "next"]
    assert site.kept.templates[64] == REQUEST, "expected a copy to be served"


def test_an_error_of_the_server_ends_the_request_and_not_the_thread(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.numbers = [core.NEW, core.STOP]
    site.state = core.REQUEST_WAITS
    site.gateway.run()  # the block is empty
    assert site.calls == ["next", FAILED, "next"]
    assert caplog.messages == ["an internal error ended a request"]


@pytest.mark.parametrize(
    ("state", "answer", "expected"),
    [
        (core.REQUEST_BEGUN, core.IDLE, [("end", True)]),
        (core.REQUEST_WAITS, core.STARTED, [FAILED, ("end", True)]),
        (core.REQUEST_WAITS, core.IDLE, [FAILED]),
        (99, core.IDLE, []),
    ],
)
def test_the_current_request_is_ended_in_any_state(
    site: Site, state: int, answer: int, expected: list[Any]
) -> None:
    site.state, site.answer = state, answer
    assert site.gateway._recover(ValueError()) == core.IDLE
    assert site.calls == expected


def test_the_end_of_a_request_is_tried_until_it_succeeds(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def state(_site: Site) -> int:
        tries.append(1)
        if len(tries) < 4:
            raise MemoryError
        return 99

    monkeypatch.setattr(core, "request_state", state)
    assert site.gateway._recover(ValueError()) == core.IDLE
    assert len(tries) == 4


def test_the_content_of_a_request_is_closed_with_it(site: Site) -> None:
    class Spooled:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    for result in ([b"a"], iter([b"a"]), [b"a", b"b"]):
        site.gateway.environs.resource = spooled = Spooled()  # type: ignore[assignment]
        site.serve(answering(result))
        assert spooled.closed == 1
        assert site.gateway.environs.resource is None
    site.gateway.environs.resource = spooled = Spooled()  # type: ignore[assignment]
    site.serve(lambda _environ, _start: 1 / 0)
    assert spooled.closed == 1


# The functions in an environ


def test_the_request_of_the_calling_thread_has_a_client(site: Site) -> None:
    assert not client_disconnected()
    site.outcome = 1
    assert client_disconnected()
    early_hints([("Link", "</a>")])
    head = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert site.calls == [("interim", head, len(head))]
    with pytest.raises(ResponseError):
        early_hints([("a b", "c")])


def test_a_thread_of_the_application_has_no_request(site: Site) -> None:
    found: list[Any] = []

    def other() -> None:
        found.append(client_disconnected())
        early_hints([("Link", "</a>")])
        try:
            early_hints([("a b", "c")])
        except ResponseError as error:
            found.append(type(error))

    site.outcome = 1
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(TIMEOUT)
    assert found == [False, ResponseError]
    assert site.calls == []


def test_write_raises_an_error_for_a_disconnected_client(site: Site) -> None:
    caught: list[type[BaseException]] = []

    def application(_environ: Any, start_response: Any) -> Any:
        site.outcome = core.GONE
        try:
            start_response("200 OK", TEXT)(b"a")
        except ClientGoneError as error:
            caught.append(type(error))
            raise
        return []

    site.serve(application)
    assert caught == [ClientGoneError]
