"""--static serves files beside the application."""

import os

import pytest

from support import exchange


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the application"]


@pytest.fixture
def public(tmp_path):
    """A directory with files, and a secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    files = tmp_path / "public"
    (files / "sub").mkdir(parents=True)
    (files / "style.css").write_text("body {}")
    (files / "index.html").write_text("<h1>index</h1>")
    (files / "sub" / "large.bin").write_bytes(bytes(range(256)) * 4096)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "style.css").write_text("other {}")
    return files


def get(server, path, fields="", method="GET"):
    request = f"{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"
    (response,) = exchange(server, request.encode("latin-1"), methods=[method])
    return response


@pytest.mark.parametrize("debug", [False, True])
def test_static_files_have_their_types_and_the_application_answers_the_rest(serve, public, debug):
    server = serve(application, static=[f"/static/={public}"], debug=debug)
    style = get(server, "/static/style.css")
    assert (style.status, style.content) == (200, b"body {}")
    assert style.value("Content-Type").startswith("text/css")
    assert style.value("Access-Control-Allow-Origin") is None
    assert get(server, "/static/sub/large.bin").content == bytes(range(256)) * 4096
    assert get(server, "/static/").content == b"<h1>index</h1>"
    assert get(server, "/static/style.css", method="HEAD").content == b""
    for path in ("/", "/style.css", "/static/absent", "/staticstyle.css"):
        assert get(server, path).content == b"the application"


def test_a_file_that_the_client_has_is_not_sent_again(serve, public):
    server = serve(application, static=f"/static={public}")
    style = get(server, "/static/style.css")
    for fields in (
        f"If-Modified-Since: {style.value('Last-Modified')}\r\n",
        f"If-None-Match: {style.value('ETag')}\r\n",
    ):
        assert get(server, "/static/style.css", fields).status == 304
    part = get(server, "/static/style.css", "Range: bytes=0-3\r\n")
    assert (part.status, part.content) == (206, b"body")


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        "/s/../secret.txt",
        "/s/%2e%2e/secret.txt",
        "/s/..%2fsecret.txt",
        "/s/sub/../../secret.txt",
        "/s//../secret.txt",
        "/s/%2fetc/passwd",
        "/s//etc/passwd",
        "/s/style.css%00.txt",
    ],
)
def test_no_file_outside_the_directory_is_served(serve, public, path, debug):
    server = serve(application, static=[f"/s/={public}"], debug=debug)
    response = get(server, path)
    assert (response.status, response.content) == (200, b"the application")


def test_the_longest_path_wins_and_the_root_can_be_a_static_path(serve, public):
    other = public.parent / "other"
    for static in ([f"/={public}", f"/sub/={other}"], [f"/sub/={other}", f"/={public}"]):
        server = serve(application, static=static)
        assert get(server, "/style.css").content == b"body {}"
        assert get(server, "/sub/style.css").content == b"other {}"
        assert get(server, "/sub/large.bin").status == 200
        assert get(server, "/").content == b"<h1>index</h1>"


def test_with_debug_new_and_changed_files_are_served(serve, public):
    server = serve(application, static=[f"/s/={public}"], debug=True)
    assert get(server, "/s/new.txt").content == b"the application"
    (public / "new.txt").write_text("new")
    assert get(server, "/s/new.txt").content == b"new"
    (public / "new.txt").write_text("newer")
    os.utime(public / "new.txt", (1, 1))
    assert get(server, "/s/new.txt").content == b"newer"
