"""The environ of a request, from blocks that the test writes in place of the core."""

from __future__ import annotations

import io
import os
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest

from picowsgi import core
from picowsgi.wsgi import environ
from picowsgi.wsgi.environ import EnvironMaker, SharedState, base_environ
from picowsgi.wsgi.input import NO_CONTENT

KNOWN = {
    "REMOTE_ADDR": "192.0.2.1",
    "HTTP_HOST": "h",
    "REQUEST_URI": "/a%62?q",
    "PATH_INFO": "/ab",
}
ENTRY = 5 << core.ENTRY_SHIFT
OTHER = ENTRY + (1 << core.ENTRY_SHIFT)


class Thread:
    """Stands for a serving thread of the core: it has a block, a request and news."""

    def __init__(self) -> None:
        self.pointer = self
        self.owner = ref(self)
        self.block = bytearray()
        self.block_size = [0]  # the same number as in the request
        self.news: list[int] = []
        self.done = 0
        self.nudged = 0
        self.request = SimpleNamespace(
            block_size=0, listener=0, content=b"", content_length=0, content_file=-1
        )

    def write(self, values: dict[str, str], others: tuple[str, ...] = ()) -> None:
        """Write the block of a request (csrc/api.h); `others` are `KEY\\1value`."""
        path = values.pop("PATH_INFO", None)
        keys = [*map(core.KEYS.index, values), *[core.OTHER_NAME] * len(others)]
        texts = [*values.values(), *others]
        if path is not None:
            keys.append(core.KEYS.index("PATH_INFO"))
            texts.append(path)
        text = "\0".join(["".join(map(chr, keys)), *texts])
        data = text.encode("latin-1")
        self.block[:] = data + b"left from an earlier request"
        self.request.block_size = self.block_size[0] = len(data)


@pytest.fixture(autouse=True)
def _core(monkeypatch: pytest.MonkeyPatch) -> None:
    def next_news(thread: Thread) -> int:
        return thread.news[0] if thread.news else -1

    def news_done(thread: Thread) -> None:
        thread.done += 1
        del thread.news[0]

    def nudge(thread: Thread) -> None:
        thread.nudged += 1

    monkeypatch.setattr(core, "next_news", next_news)
    monkeypatch.setattr(core, "news_done", news_done)
    monkeypatch.setattr(core, "nudge", nudge)
    monkeypatch.setattr(environ, "unpack", lambda content, length: content[:length])


@pytest.fixture
def thread() -> Thread:
    return Thread()


@pytest.fixture
def kept() -> SharedState:
    return SharedState(SimpleNamespace(loans={}))  # type: ignore[arg-type]


def maker(thread: Thread, kept: SharedState, *bases: dict[str, Any]) -> EnvironMaker:
    return EnvironMaker(thread, [*(bases or ({"SERVER_NAME": "a"},))], kept)  # type: ignore[arg-type]


def expected(**more: str) -> dict[str, Any]:
    values = {"SERVER_NAME": "a", **KNOWN, **more}
    return {**values, "RAW_URI": values["REQUEST_URI"]}


def test_all_requests_of_a_tcp_socket_share_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        base = base_environ(sock, {"x": 1})
        errors = base.pop("wsgi.errors")
        assert base == {
            "REQUEST_METHOD": "GET",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SCRIPT_NAME": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(sock.getsockname()[1]),
            "SERVER_SOFTWARE": "picowsgi",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": NO_CONTENT,
            "wsgi.input_terminated": True,
            "wsgi.run_once": False,
            "x": 1,
        }
        assert callable(errors.write)


def test_a_socket_of_ipv6_and_a_unix_socket_have_a_name_and_a_port(tmp_path: Path) -> None:
    class Six:
        family = socket.AF_INET6

        def getsockname(self) -> tuple[object, ...]:
            return "::1", 81, 0, 0

    base = base_environ(Six(), {})  # type: ignore[arg-type]
    assert (base["SERVER_NAME"], base["SERVER_PORT"]) == ("::1", "81")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        base = base_environ(sock, {})
        assert (base["SERVER_NAME"], base["SERVER_PORT"]) == ("localhost", "80")


def test_a_new_request_has_the_values_of_its_block(thread: Thread, kept: SharedState) -> None:
    make = maker(thread, kept).make
    for _ in range(3):
        thread.write({**KNOWN})
        assert make(core.NEW) == expected()
    assert (kept.templates, kept.changed) == ({}, {})


def test_a_path_alone_may_hold_nul(thread: Thread, kept: SharedState) -> None:
    thread.write({**KNOWN, "PATH_INFO": "/\0a\0"})
    assert maker(thread, kept).make(core.NEW) == expected(PATH_INFO="/\0a\0")


def test_values_are_latin_1(thread: Thread, kept: SharedState) -> None:
    thread.write({**KNOWN, "HTTP_HOST": "\xe9\xff"})
    assert maker(thread, kept).make(core.NEW)["HTTP_HOST"] == "\xe9\xff"


@pytest.mark.parametrize("listener", [0, 1])
def test_a_request_has_the_values_of_its_socket(
    thread: Thread, kept: SharedState, listener: int
) -> None:
    make = maker(thread, kept, {"SERVER_NAME": "a"}, {"SERVER_NAME": "b"}).make
    thread.request.listener = listener
    for names in (0, core.OTHER_NAMES):
        thread.write({**KNOWN})
        assert make(core.NEW | names)["SERVER_NAME"] == "ab"[listener]


def test_a_repeated_head_gets_a_copy_of_the_stored_environ(
    thread: Thread, kept: SharedState
) -> None:
    make = maker(thread, kept).make
    thread.write({**KNOWN})
    first = make(core.STORE | ENTRY)
    assert first == expected()
    first["mine"] = 1
    thread.request.block_size = thread.block_size[0] = 0
    again = make(core.SAME | ENTRY)
    assert again == expected()
    again["mine"] = 1
    assert make(core.SAME | ENTRY) == expected()
    thread.write({"REQUEST_URI": "/c", "PATH_INFO": "/c"})
    assert make(core.CHANGED | ENTRY) == expected(REQUEST_URI="/c", PATH_INFO="/c")
    assert make(core.SAME | ENTRY) == expected()


def test_names_without_a_number_are_read_from_the_block(thread: Thread, kept: SharedState) -> None:
    make = maker(thread, kept).make
    thread.write({**KNOWN}, ("HTTP_X_A\x01one", "HTTP_X_EMPTY\x01", "HTTP_X_B\x01a\x01b"))
    found = make(core.NEW | core.OTHER_NAMES)
    assert found == expected(HTTP_X_A="one", HTTP_X_EMPTY="", HTTP_X_B="a\x01b")
    assert make(core.STORE | core.OTHER_NAMES | ENTRY) == found
    assert make(core.SAME | ENTRY) == found


def test_two_names_that_become_one_key_are_joined(thread: Thread, kept: SharedState) -> None:
    thread.write({**KNOWN}, ("HTTP_X_A\x01one", "HTTP_HOST\x01i", "HTTP_X_A\x01two"))
    found = maker(thread, kept).make(core.NEW | core.OTHER_NAMES)
    assert (found["HTTP_X_A"], found["HTTP_HOST"]) == ("one,two", "h,i")


def test_content_in_memory_is_a_stream_of_its_own(thread: Thread, kept: SharedState) -> None:
    make = maker(thread, kept).make
    thread.request.content, thread.request.content_length = b"abcdef", 3
    for number in (core.NEW, core.STORE | ENTRY, core.SAME | ENTRY):
        thread.write({**KNOWN})
        stream = make(number | core.CONTENT)["wsgi.input"]
        assert type(stream) is io.BytesIO
        assert stream.read() == b"abc"
    assert "wsgi.input" not in make(core.SAME | ENTRY)
    thread.request.content, thread.request.content_length = None, 0
    assert make(core.SAME | ENTRY | core.CONTENT)["wsgi.input"].read() == b""


def test_content_in_a_file_is_closed_at_the_end_of_its_request(
    thread: Thread, kept: SharedState
) -> None:
    one = maker(thread, kept)
    descriptor, name = tempfile.mkstemp()
    Path(name).unlink()
    os.write(descriptor, b"content")
    thread.request.content_file = descriptor
    thread.write({**KNOWN})
    found = one.make(core.NEW | core.CONTENT | core.IN_FILE)
    assert found["wsgi.input"] is one.resource
    assert found["wsgi.input"].read() == b"content"
    one.close_resource()
    assert found["wsgi.input"].closed
    assert one.resource is None
    one.close_resource()


def test_an_application_may_have_closed_the_content_itself(
    thread: Thread, kept: SharedState
) -> None:
    one = maker(thread, kept)
    for spoil in (lambda file: os.close(file.fileno()), lambda file: file.detach()):
        with tempfile.TemporaryFile() as temporary:
            thread.request.content_file = os.dup(temporary.fileno())
        thread.write({**KNOWN})
        raw = spoil(one.make(core.NEW | core.CONTENT | core.IN_FILE)["wsgi.input"])
        one.close_resource()
        assert one.resource is None
        if raw is not None:
            raw.close()


# News


def test_a_template_is_freed_with_its_connection_and_no_other(
    thread: Thread, kept: SharedState
) -> None:
    make = maker(thread, kept).make
    for entry in (ENTRY, OTHER):
        thread.write({**KNOWN})
        make(core.STORE | entry)
    assert set(kept.templates) == {ENTRY, OTHER}
    assert set(kept.changed) == {ENTRY | core.CHANGED, OTHER | core.CHANGED}
    kept.templates[0] = {}
    thread.news = [(ENTRY >> core.ENTRY_SHIFT) << 1, 99 << 1, 0]
    kept.take_news(thread)  # type: ignore[arg-type]
    assert (set(kept.templates), set(kept.changed)) == ({OTHER}, {OTHER | core.CHANGED})
    assert (thread.news, thread.done) == ([], 3)


def test_news_of_an_entry_are_handled_before_the_entry_is_used_again(
    thread: Thread, kept: SharedState
) -> None:
    make = maker(thread, kept).make
    thread.write({**KNOWN})
    make(core.STORE | ENTRY)
    thread.news = [(ENTRY >> core.ENTRY_SHIFT) << 1]
    thread.write({**KNOWN, "HTTP_HOST": "new"})
    make(core.STORE | ENTRY)
    assert make(core.SAME | ENTRY)["HTTP_HOST"] == "new", "expected the template to stay"


def test_news_are_handled_when_the_flag_of_a_request_says_so(
    thread: Thread, kept: SharedState
) -> None:
    make = maker(thread, kept).make
    kept.loans[3] = thread.owner, b"lent"  # type: ignore[assignment]
    thread.news = [3 << 1 | core.NEWS_SENT]
    thread.write({**KNOWN})
    make(core.NEW)
    assert 3 in kept.loans
    make(core.NEW | core.NEWS)
    assert kept.loans == {}


@pytest.mark.parametrize(("gil", "nudges"), [(True, 0), (False, 1)])
def test_sent_loans_are_released_and_their_owner_is_woken_in_parallel_threads(
    monkeypatch: pytest.MonkeyPatch, thread: Thread, kept: SharedState, gil: bool, nudges: int
) -> None:
    monkeypatch.setattr(environ, "has_gil", lambda: gil)
    other = Thread()
    kept.loans[1] = thread.owner, b"own"  # type: ignore[assignment]
    kept.loans[2] = other.owner, b"another's"  # type: ignore[assignment]
    kept.loans[3] = ref(Thread()), b"of one that has ended"  # type: ignore[assignment]
    kept.loans[4] = other.owner, b"still needed"  # type: ignore[assignment]
    thread.news = [each << 1 | core.NEWS_SENT for each in (1, 2, 3, 99)]
    kept.take_news(thread)  # type: ignore[arg-type]
    assert set(kept.loans) == {4}
    assert (thread.nudged, other.nudged) == (0, nudges)


def test_one_thread_at_a_time_handles_the_news(
    monkeypatch: pytest.MonkeyPatch, thread: Thread, kept: SharedState
) -> None:
    held: list[bool] = []

    def next_news(_thread: Thread) -> int:
        held.append(kept.lock.locked())
        return -1

    monkeypatch.setattr(core, "next_news", next_news)
    kept.take_news(thread)  # type: ignore[arg-type]
    kept.put_template(thread, ENTRY, {})  # type: ignore[arg-type]
    assert held == [True, True]
    assert not kept.lock.locked()


# The values that the serving threads of one server share (`SharedState`)


@pytest.fixture
def news(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the news of the core. The test fills the list."""
    waiting: list[int] = []
    monkeypatch.setattr(core, "next_news", lambda _: waiting[0] if waiting else -1)
    monkeypatch.setattr(core, "news_done", lambda _: waiting.pop(0))
    return waiting


def test_all_templates_of_an_entry_are_freed_together(news: list[int]) -> None:
    """The number of a connection that has ended must not find the environ of its client."""
    server: Any = SimpleNamespace(loans={})
    thread: Any = SimpleNamespace(pointer=None)
    kept = SharedState(server)
    stays, goes = (number << core.ENTRY_SHIFT for number in (3, 4))
    kept.put_template(thread, stays, {"HTTP_COOKIE": "stays"})
    kept.put_template(thread, goes, {"HTTP_COOKIE": "goes"})
    news.append(4 << 1)
    kept.take_news(thread)
    assert news == []
    found = [
        kept.templates[stays | core.SAME],
        kept.changed[stays | core.CHANGED],
        kept.with_content[stays | core.SAME | core.CONTENT],
    ]
    assert [environ["HTTP_COOKIE"] for environ in found] == ["stays"] * 3
    assert [len(all_) for all_ in (kept.templates, kept.changed, kept.with_content)] == [1] * 3
