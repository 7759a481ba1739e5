"""Live reload: which responses get the script, and what else changes in them."""

from __future__ import annotations

import itertools
from io import BytesIO
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import picowsgi
from picowsgi.app.live_reload import mode, policy
from picowsgi.app.live_reload.channel import Channel
from picowsgi.app.live_reload.middleware import ENDPOINT, LiveReload
from picowsgi.app.live_reload.script import make_script
from picowsgi.app.pages.error import make_page
from picowsgi.config.settings import Settings
from picowsgi.errors import ConfigError
from support.client import RawClient
from support.properties import PROPERTY

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = "some-version"
SCRIPT = make_script(ENDPOINT, VERSION)
HTML = ("Content-Type", "text/html; charset=utf-8")
PAGE = b"<!DOCTYPE html>\n<title>A page</title><p>Text"
BROWSER = {"HTTP_ACCEPT": "text/html,*/*;q=0.8", "HTTP_HOST": "localhost:8000"}
NAVIGATION = {**BROWSER, "HTTP_SEC_FETCH_DEST": "document"}


class Answer:
    """The response of an application with live reload, under `wsgiref.validate`."""

    def __init__(self, application: Any, environ: dict[str, str], *, valid: bool = True) -> None:
        full: dict[str, Any] = {"REQUEST_METHOD": "GET", "QUERY_STRING": "", **environ}
        full.setdefault("wsgi.input", BytesIO())
        setup_testing_defaults(full)
        self.written: list[bytes] = []
        self.status = ""
        live = LiveReload(validator(application) if valid else application, Channel(VERSION))
        self.result: Any = (validator(live) if valid else live)(full, self._start_response)
        self.items: list[bytes] = []

    def _start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        assert exc_info is not None or not self.status
        self.status, self.headers = status, headers
        return self.written.append

    def read(self) -> bytes:
        """Read the rest of the content, and return all of it."""
        try:
            self.items += list(self.result)
        finally:
            getattr(self.result, "close", lambda: None)()
        return b"".join(self.written + self.items)

    def __getitem__(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def responds(
    *items: bytes, status: str = "200 OK", headers: tuple[tuple[str, str], ...] = (HTML,)
) -> Any:
    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, list(headers))
        return list(items)

    return application


def in_a_list(items: list[bytes], start: Callable[[], Any]) -> Any:
    start()
    return items


def in_a_generator(items: list[bytes], start: Callable[[], Any]) -> Any:
    start()
    yield from items


def by_write(items: list[bytes], start: Callable[[], Any]) -> Any:
    write = start()
    for item in items[:-1]:
        write(item)
    return items[-1:]


def in_a_file(items: list[bytes], start: Callable[[], Any]) -> Any:
    start()
    return FileWrapper(BytesIO(b"".join(items)), 7)


@PROPERTY
@given(
    respond=st.sampled_from([in_a_list, in_a_generator, by_write, in_a_file]),
    items=st.lists(st.sampled_from([b"", PAGE, b"<p>More", b"\xff\xfe", b"</html>", b"<!-- "])),
    kind=st.sampled_from(["text/html", "TEXT/HTML;charset=latin-1", "text/plain", "image/png"]),
    with_length=st.booleans(),
    status=st.sampled_from(["200 OK", "404 Not Found", "302 Found", "206 Partial Content"]),
    environ=st.sampled_from([BROWSER, NAVIGATION, {**NAVIGATION, "HTTP_SEC_FETCH_DEST": "empty"}]),
    replaced=st.booleans(),
)
def test_the_content_is_the_same_without_the_script_and_has_its_length(
    respond: Any,
    items: list[bytes],
    kind: str,
    with_length: bool,
    status: str,
    environ: dict[str, str],
    replaced: bool,
) -> None:
    content = b"".join(items)

    def application(_environ: Any, start_response: Any) -> Any:
        headers = [("Content-Type", kind), ("ETag", '"x"')]
        if with_length:
            headers.append(("Content-Length", str(len(content))))

        def start() -> Any:
            error: Any = ()
            if replaced:
                start_response("500 Internal Server Error", [HTML])
                error = ((None, None, None),)
            return start_response(status, headers, *error)

        return respond(items, start)

    answer = Answer(application, environ)
    sent = answer.read()
    assert answer.status == status
    has_script = sent.endswith(SCRIPT.element)
    assert sent == content + (SCRIPT.element if has_script else b"")
    if with_length:
        assert answer["Content-Length"] == str(len(sent))
    assert (answer["ETag"] is None) == has_script
    first = next(filter(None, items), b"")
    is_page = first == PAGE or (environ is NAVIGATION and first not in (b"", b"\xff\xfe"))
    if respond is in_a_file:
        first = content[:7]
        is_page = environ is NAVIGATION and first != b"" and not first.startswith(b"\xff\xfe")
    expected = (
        is_page and "html" in kind.lower() and status in ("200 OK", "404 Not Found")
        and environ.get("HTTP_SEC_FETCH_DEST", "document") == "document"
    )  # fmt: skip
    assert has_script == expected


@pytest.mark.parametrize(
    ("environ", "headers"),
    [
        ({"REQUEST_METHOD": "POST"}, ()),
        ({"REQUEST_METHOD": "HEAD"}, ()),
        ({"HTTP_SEC_FETCH_DEST": "iframe"}, ()),
        ({"HTTP_RANGE": "bytes=0-5"}, ()),
        ({}, [("Content-Encoding", "gzip")]),
        ({}, [("Content-Disposition", "attachment; filename=page.html")]),
        ({}, [("Content-Type", "application/xhtml+xml")]),
        ({}, [("Content-Type", "text/html; charset=utf-16")]),
        ({}, [("Content-Type", "text/html; charset=iso-2022-jp")]),
        ({}, [("Content-Type", "text/html; charset=unknown")]),
        ({}, [HTML, ("Content-Security-Policy", "sandbox")]),
    ],
)
def test_other_responses_stay_as_they_are(
    environ: dict[str, str], headers: list[tuple[str, str]]
) -> None:
    headers = [*headers, ("ETag", '"x"')] if headers else [HTML, ("ETag", '"x"')]
    application = responds(PAGE, headers=tuple(headers))
    answer = Answer(application, {**NAVIGATION, **environ}, valid=False)
    assert answer.read() == PAGE
    assert answer.headers == headers


@pytest.mark.parametrize("name", ["HTTP_HX_REQUEST", "HTTP_X_REQUESTED_WITH", "HTTP_ACCEPT"])
def test_a_part_of_a_page_gets_no_script_without_sec_fetch_dest_either(name: str) -> None:
    assert Answer(responds(PAGE), {**BROWSER, name: "*/*"}).read() == PAGE
    assert Answer(responds(b"<li>A fragment"), BROWSER).read() == b"<li>A fragment"
    commented = b"\xef\xbb\xbf <!-- a --><!-- b -->\n<HTML>"
    assert Answer(responds(commented), BROWSER).read() == commented + SCRIPT.element


def test_the_application_is_asked_for_the_whole_page_without_compression() -> None:
    conditions = {
        "HTTP_ACCEPT_ENCODING": "gzip",
        "HTTP_IF_NONE_MATCH": '"x"',
        "HTTP_IF_MODIFIED_SINCE": "Thu, 01 Jan 1970 00:00:00 GMT",
    }
    seen: list[set[str]] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(conditions.keys() & environ.keys())
        start_response("200 OK", [HTML])
        return [PAGE]

    Answer(application, {**NAVIGATION, **conditions}).read()
    Answer(application, {**NAVIGATION, **conditions, "HTTP_SEC_FETCH_DEST": "style"}).read()
    assert seen == [set(), conditions.keys()]


def test_each_item_of_a_stream_goes_out_at_once_and_close_is_called() -> None:
    made: list[bytes] = []
    closed: list[bool] = []

    class Stream:
        def __iter__(self) -> Any:
            for number in itertools.count():
                made.append(PAGE if number == 1 else b"" if number == 0 else b"<p>")
                yield made[-1]

        def close(self) -> None:
            closed.append(True)

    def application(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [HTML])
        return Stream()

    answer = Answer(application, NAVIGATION, valid=False)
    items = iter(answer.result)
    for number in range(5):
        assert next(items) == made[-1]
        assert len(made) == number + 1
    answer.result.close()
    assert closed == [True]


def test_a_file_that_is_no_page_goes_to_the_server_as_it_is() -> None:
    wrapper = FileWrapper(BytesIO(b"data"))

    def application(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "image/png")])
        return wrapper

    assert Answer(application, NAVIGATION, valid=False).result is wrapper


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("img-src *", "img-src *"),
        ("script-src 'unsafe-inline'", "script-src 'unsafe-inline'"),
        ("script-src 'self'", "script-src 'self'; script-src-elem 'self' {hash}"),
        (
            "script-src 'nonce-x' 'unsafe-inline'; script-src x",
            (
                "script-src 'nonce-x' 'unsafe-inline'; "
                "script-src-elem 'nonce-x' 'unsafe-inline' {hash}"
            ),
        ),
        ("Script-Src-Elem 'none'", "script-src-elem {hash}"),
        ("default-src 'self'", "default-src 'self'; script-src-elem 'self' {hash}"),
        ("connect-src 'none'", "connect-src {endpoint}"),
        ("sandbox allow-scripts", "sandbox allow-scripts"),
        ("sandbox allow-forms", None),
        (
            "default-src 'none'; style-src a, script-src b;",
            (
                "default-src 'none'; style-src a; script-src-elem {hash}; connect-src {endpoint}, "
                "script-src b; script-src-elem b {hash}"
            ),
        ),
    ],
)
def test_a_policy_allows_the_script_and_its_endpoint_and_nothing_else(
    before: str, after: str | None
) -> None:
    endpoint = "a:1/live ws://a:1/live wss://a:1/live"
    expected = after and after.format(hash="'sha256-x'", endpoint=endpoint)
    assert policy.allow(before, "'sha256-x'", "a:1", "/live") == expected


def test_a_policy_cannot_name_an_ipv6_address_so_it_names_the_own_server() -> None:
    assert policy.allow("connect-src a", "'x'", "[::1]:8000", "/live") == "connect-src a 'self'"


def test_the_page_for_an_error_has_the_script_too() -> None:
    pages = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        pages.append(make_page(environ, KeyError("x")))
        start_response("200 OK", [HTML])
        return [PAGE]

    Answer(application, NAVIGATION).read()
    headers, content = pages[0]
    assert content.endswith(SCRIPT.element)
    assert dict(headers)["Content-Length"] == str(len(content))
    assert SCRIPT.hash in dict(headers)["Content-Security-Policy"]


def test_the_script_finds_the_endpoint_below_the_path_of_a_proxy() -> None:
    script = make_script("/a%3Cb" + ENDPOINT, VERSION)
    assert (
        Answer(responds(PAGE), {**NAVIGATION, "SCRIPT_NAME": "/a<b", "PATH_INFO": "/"})
        .read()
        .endswith(script.element)
    )
    assert b"</script" not in make_script("</script>", VERSION).element[:-10]


def test_an_open_page_learns_the_version_and_waits_in_no_thread_for_the_next() -> None:
    channel = Channel("first")
    live = LiveReload(responds(PAGE), channel)
    ask = (
        b"GET /__picowsgi__/live-reload HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with picowsgi.Server(live, port=0, threads=1, access_log=False) as server:
        with RawClient(server.port) as plain:
            plain.send(b"GET /__picowsgi__/live-reload HTTP/1.1\r\nHost: a\r\n\r\n")
            assert plain.read_response().content == b"first"
        with RawClient(server.port) as one, RawClient(server.port) as other:
            for page in (one, other):
                page.send(ask)
                head = page.read_response()
                assert head.value("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            channel.change("second")
            for page in (one, other):
                assert page.read_to_end() == b"\x81\x05first\x88\x02\x03\xe9"
        channel.end()
        with RawClient(server.port) as late:
            late.send(ask)
            assert late.read_to_end().endswith(b"\x81\x06second\x88\x02\x03\xe9")


def test_it_is_on_only_in_development_and_needs_the_reloader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=r"option live_reload: .* use --reload too"):
        picowsgi.Server(responds(), live_reload=True)
    developing = Settings(reload=True, debug=True)
    monkeypatch.setattr(mode, "is_terminal", lambda _stream: False)
    assert not mode.is_on(developing)
    assert mode.is_on(Settings(reload=True, live_reload="on"))
    monkeypatch.setattr(mode, "is_terminal", lambda _stream: True)
    assert mode.is_on(developing)
    assert mode.is_on(Settings(), developing=True)
    assert not mode.is_on(Settings(live_reload="on")), "expected the environment to be no error"
    assert not mode.is_on(Settings(reload=True))
    assert not mode.is_on(Settings(reload=True, debug=True, live_reload="off"))
