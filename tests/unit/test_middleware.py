"""The refusals, warnings and middleware of --static, --debug and --open."""

from __future__ import annotations

import queue
import socket
import webbrowser
from typing import TYPE_CHECKING, Any

import pytest

import picowsgi
from picowsgi.app import middleware
from picowsgi.config.settings import Settings
from picowsgi.config.values import parse_static
from picowsgi.errors import ConfigError
from picowsgi.system import browser
from support import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def application(environ: Any, start_response: Any) -> list[bytes]:
    raise AssertionError


@pytest.fixture
def local() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


class Elsewhere(socket.socket):
    """A socket that claims to listen on all addresses."""

    def getsockname(self) -> tuple[str, int]:
        return "0.0.0.0", 8000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/=public", ("/", "public")),
        ("/static=a/b", ("/static", "a/b")),
        ("/s/=a=b", ("/s/", "a=b")),
    ],
)
def test_static_is_a_path_and_a_directory(text: str, parts: tuple[str, str]) -> None:
    assert parse_static(text) == parts


@pytest.mark.parametrize("text", ["", "public", "static=public", "/static", "/static=", "/a?b=c"])
def test_an_invalid_value_of_static_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match="option static: expected URL=DIR, a path and a directory"
    ):
        picowsgi.Server(application, static=[text])


def test_without_whitenoise_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'picowsgi\[static\]'"):
        picowsgi.Server(application, port=0, static=[f"/={tmp_path}"])


def test_debug_on_a_public_address_is_warned_about(
    caplog: pytest.LogCaptureFixture, local: socket.socket
) -> None:
    with Elsewhere() as elsewhere:
        middleware.warn(Settings(), [local, elsewhere])
        middleware.warn(Settings(debug=True), [local])
        assert caplog.text == ""
        middleware.warn(Settings(debug=True), [local, elsewhere])
    assert "--debug on http://0.0.0.0:8000: every client that can connect sees" in caplog.text


def test_the_debugger_accepts_code_only_in_one_process_on_a_private_address(
    local: socket.socket,
) -> None:
    from werkzeug.debug import DebuggedApplication

    with Elsewhere() as elsewhere:
        for settings, sockets, interactive in (
            (Settings(debug=True), [local], True),
            (Settings(debug=True, workers=2), [local], False),
            (Settings(debug=True), [local, elsewhere], False),
        ):
            wrapped = middleware.wrap(application, settings, sockets)
            assert isinstance(wrapped, DebuggedApplication)
            assert wrapped.evalex is interactive


def test_without_debug_and_static_the_application_is_not_wrapped(local: socket.socket) -> None:
    assert middleware.wrap(application, Settings(), [local]) is application


@pytest.mark.parametrize(
    ("url", "reachable"),
    [
        ("http://0.0.0.0:80", "http://127.0.0.1:80"),
        ("http://[::]:80", "http://[::1]:80"),
        ("http://127.0.0.2:80", "http://127.0.0.2:80"),
    ],
)
def test_the_browser_gets_an_address_that_it_can_connect_to(url: str, reachable: str) -> None:
    assert browser._reachable(url) == reachable


def test_the_browser_opens_the_first_address_that_is_no_unix_socket(
    local: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = queue.Queue[str]()
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.put(url) or True)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        browser.open_page([unix, local])
    assert opened.get(timeout=TIMEOUT) == f"http://127.0.0.1:{local.getsockname()[1]}"


def test_the_browser_cannot_open_unix_sockets(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        browser.open_page([unix])
    assert "--open: no browser can connect to a unix socket" in caplog.text


def test_a_server_in_code_opens_the_browser_too(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = queue.Queue[str]()
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.put(url) or True)
    with picowsgi.Server(application, port=0, open=True) as server:
        assert opened.get(timeout=TIMEOUT) == server.url


# Static files


def answer(application: Any, path: str, **environ: str) -> tuple[str, dict[str, str], bytes]:
    """The response of an application to a request for a path."""
    given: list[Any] = []
    result = application(
        {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", **environ},
        lambda status, headers, _exc_info=None: given.append((status, dict(headers))),
    )
    body = b"".join(result)
    if hasattr(result, "close"):
        result.close()
    return (*given[-1], body)


def not_found(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return [b"the application"]


def test_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    middleware.check(Settings(static=(f"/={tmp_path}",)))
    with pytest.raises(ConfigError, match="--static: /nonexistent is not a directory"):
        middleware.check(Settings(static=(f"/={tmp_path}", "/b=/nonexistent")))


def test_the_longest_path_wins_no_matter_the_order_and_the_directory(
    tmp_path: Path, local: socket.socket
) -> None:
    pytest.importorskip("whitenoise")
    outer, inner = tmp_path / "a-directory-with-a-long-name", tmp_path / "b"
    for folder in (outer, inner):
        folder.mkdir()
        (folder / "index.html").write_text(folder.name)
    (outer / "x").mkdir()
    (outer / "x" / "page.txt").write_text("outer")
    (inner / "page.txt").write_text("inner")
    texts = (f"/s/={outer}", f"/s/x/={inner}")
    for static in (texts, texts[::-1]):
        wrapped = middleware.wrap(not_found, Settings(static=static), [local])
        assert answer(wrapped, "/s/x/page.txt")[2] == b"inner"
        status, headers, body = answer(wrapped, "/s/")
        assert (status, body) == ("200 OK", outer.name.encode()), "expected the index page"
        assert "Access-Control-Allow-Origin" not in headers, "expected no access from another site"
        assert answer(wrapped, "/other")[2] == b"the application"


@pytest.mark.parametrize(
    ("options", "seen"), [({}, False), ({"debug": True}, True), ({"reload": True}, True)]
)
def test_files_that_are_added_later_are_served_with_debug(
    tmp_path: Path, local: socket.socket, options: dict[str, bool], seen: bool
) -> None:
    pytest.importorskip("whitenoise")
    settings = Settings(static=(f"/={tmp_path}",), **options)
    wrapped = middleware._with_files(not_found, settings)
    (tmp_path / "late.txt").write_text("late")
    assert (answer(wrapped, "/late.txt")[2] == b"late") == seen


def test_a_unix_socket_is_a_private_address(tmp_path: Path, caplog: Any) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        middleware.warn(Settings(debug=True), [sock])
    assert caplog.text == ""
