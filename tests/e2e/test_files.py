"""`wsgi.file_wrapper`: real files are sent with sendfile, and other objects are read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import resource
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from soak.process import MEBIBYTE, open_files
from support import PING, connect, exchange, ping, slow_client, wait_until

TEXT = ("Content-Type", "text/plain; charset=utf-8")
OCTETS = ("Content-Type", "application/octet-stream")
# More than the sockets of both sides and the response buffer take together.
LARGE_SIZE = 16 * MEBIBYTE

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"

CONTENT = b"".join(b"line %d\n" % number for number in range(10_000))
SIZE = len(CONTENT)


class Site:
    """An application that answers / with the file wrapper around open_file()."""

    def __init__(self, open_file, fields=(), status="200 OK", write=b""):
        self._open_file = open_file
        self._status = status
        self._fields = [OCTETS, *fields]
        self._write = write
        self.opened = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/ping":
            start_response("200 OK", [TEXT])
            return [b"pong"]
        self.opened.append(self._open_file())
        write = start_response(self._status, self._fields)
        if self._write:
            write(self._write)
        return environ["wsgi.file_wrapper"](self.opened[-1])

    def wait_for_close(self):
        """Expect a close() call for each opened file."""
        assert self.opened, "expected a call of the application"
        wait_until(lambda: all(one.closed for one in self.opened), "close() of all files")


def open_at(path, position=0):
    file = path.open("rb")
    file.seek(position)
    return file


def read_first(client, size):
    """Read until `size` bytes of the response have arrived, and only slightly more."""
    wait_until(
        lambda: client.read_some(4_096) >= 0 and len(client.received) >= size, f"{size} bytes"
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file that is larger than all buffers. All its blocks differ."""
    path = tmp_path_factory.mktemp("files") / "large"
    with path.open("wb") as file:
        for number in range(LARGE_SIZE // 65_536):
            file.write(hashlib.sha512(b"%d" % number).digest() * 1_024)
    return path


# --- the amount of content ----------------------------------------------------------------------


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize(
    ("position", "length", "announced", "sent"),
    [
        (0, None, SIZE, SIZE),
        (1, None, SIZE - 1, SIZE - 1),
        (SIZE - 1, None, 1, 1),
        (SIZE, None, 0, 0),
        (SIZE + 1_000, None, 0, 0),
        (0, SIZE, SIZE, SIZE),
        (0, 0, 0, 0),
        (0, 1, 1, 1),
        (5_000, 70_000, 70_000, 70_000),
        (SIZE - 10, 10, 10, 10),
        (0, SIZE + 1, SIZE + 1, SIZE),
        (SIZE - 10, 5_000, 5_000, 10),
        (SIZE + 1_000, 5, 5, 0),
    ],
)
def test_the_file_is_sent_from_its_position_to_its_length(
    serve, caplog, path, version, position, length, announced, sent
):
    fields = [] if length is None else [("Content-Length", str(length))]
    site = Site(lambda: open_at(path, position), fields)
    server = serve(site)
    with connect(server) as client:
        client.send(b"GET / HTTP/%s\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" % version)
        answer = client.read_response()
        assert answer.status == 200
        assert answer.value("Content-Length") == str(announced)
        assert answer.value("Transfer-Encoding") is None
        assert answer.content == CONTENT[position : position + sent]
        assert answer.complete == (sent == announced)
        if answer.complete:
            client.send(PING)
            assert client.read_response().content == b"pong", "expected the connection to be kept"
        else:
            client.read_nothing_more()
    site.wait_for_close()
    logged = [record.getMessage() for record in caplog.records]
    if sent < announced:
        assert any("less than its Content-Length" in line for line in logged), logged
    else:
        assert not logged


@pytest.mark.parametrize(
    ("request_bytes", "status", "length"),
    [
        (HEAD, "200 OK", str(SIZE)),
        (HEAD, "404 Not Found", str(SIZE)),
        (GET, "204 No Content", None),
        (HEAD, "204 No Content", None),
        (GET, "304 Not Modified", str(SIZE)),
    ],
)
def test_a_response_without_content_does_not_read_the_file(
    serve, path, request_bytes, status, length
):
    positions = []

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/ping":
            start_response("200 OK", [TEXT])
            return [b"pong"]
        file = path.open("rb")
        wrapper = environ["wsgi.file_wrapper"](file)

        def close():
            positions.append(file.tell())
            file.close()

        wrapper.close = close
        start_response(status, [OCTETS])
        return wrapper

    method = request_bytes.split()[0].decode()
    answer, pong = exchange(serve(application), request_bytes + PING, 2, [method, "GET"])
    assert f"{answer.status} {answer.reason}" == status
    assert answer.value("Content-Length") == length
    assert answer.value("Transfer-Encoding") is None
    assert pong.content == b"pong"
    assert positions == [0], "expected one close() of the file and no read before it"


@pytest.mark.parametrize("fields", [[], [("Content-Length", "0")]], ids=["", "length"])
def test_an_empty_file_is_an_empty_response(serve, tmp_path, fields):
    path = tmp_path / "empty"
    path.touch()
    site = Site(lambda: open_at(path), fields)
    answers = exchange(serve(site), GET + HEAD + GET, 3, ["GET", "HEAD", "GET"])
    assert [answer.value("Content-Length") for answer in answers] == ["0"] * 3
    assert [answer.content for answer in answers] == [b""] * 3
    site.wait_for_close()


def test_the_file_follows_the_content_that_was_written_before(serve, path):
    fields = [("Content-Length", str(SIZE + 5))]
    site = Site(lambda: open_at(path), fields, write=b"first")
    for answer in exchange(serve(site), GET * 2, 2):
        assert answer.content == b"first" + CONTENT
    site.wait_for_close()


def test_a_file_after_written_content_without_a_length_is_sent_in_chunks(serve, path):
    site = Site(lambda: open_at(path), write=b"first")
    for answer in exchange(serve(site), GET * 2, 2):
        assert answer.value("Transfer-Encoding") == "chunked"
        assert answer.content == b"first" + CONTENT
    site.wait_for_close()


def test_pipelined_files_and_other_answers_arrive_in_order(serve, path):
    answers = exchange(serve(Site(lambda: open_at(path))), (GET + PING + PING) * 30, 90)
    assert [answer.content for answer in answers] == [CONTENT, b"pong", b"pong"] * 30


def test_a_file_of_8_gib_is_announced_whole_and_released_when_the_client_disconnects(
    serve, tmp_path
):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(CONTENT)
        file.truncate(8 << 30)
    server = serve(Site(lambda: open_at(path)))
    with slow_client(server) as client:
        client.send(GET)
        read_first(client, SIZE + 1_000)
        head, _, content = client.received.partition(b"\r\n\r\n")
        assert b"Content-Length: 8589934592" in head.splitlines()
        assert content[:SIZE] == CONTENT
        assert str(path) in open_files(), "expected the file to be open while it is sent"
    wait_until(lambda: str(path) not in open_files(), "the file to be closed")
    ping(server)


def test_the_end_of_a_file_of_8_gib_is_sent_from_its_position(serve, tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek((8 << 30) - SIZE)
        file.write(CONTENT)
    server = serve(Site(lambda: open_at(path, (8 << 30) - SIZE - 1_000_000)))
    assert exchange(server, GET)[0].content == bytes(1_000_000) + CONTENT


# --- events during a file -----------------------------------------------------------------------


def copy_of(large, tmp_path):
    path = tmp_path / "copy"
    path.write_bytes(large.read_bytes())
    return path


def test_a_file_that_shrinks_while_it_is_sent_breaks_off_only_that_response(
    serve, caplog, large, tmp_path
):
    path = copy_of(large, tmp_path)
    server = serve(Site(lambda: open_at(path)))
    with slow_client(server) as client:
        client.send(GET)
        assert not client.is_over()
        ping(server)
        os.truncate(path, 1_000_000)
        answer = client.read_response()
        assert answer.value("Content-Length") == str(LARGE_SIZE)
        assert not answer.complete, "expected the client to see that its content is cut off"
        assert answer.content == large.read_bytes()[: len(answer.content)]
    ping(server)
    assert str(path) not in open_files()
    wait_until(lambda: "a file became shorter" in caplog.text, "a line in the error log")


def test_a_file_that_grows_or_is_deleted_while_it_is_sent_is_sent_as_it_was(serve, large, tmp_path):
    path = copy_of(large, tmp_path)
    server = serve(Site(lambda: open_at(path)))
    with slow_client(server) as client:
        client.send(GET + PING)
        assert not client.is_over()
        with path.open("ab") as file:
            file.write(b"more")
        path.unlink()
        assert client.read_response().content == large.read_bytes()
        assert client.read_response().content == b"pong"


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_client_that_disconnects_during_a_file_leaves_no_descriptor_open(serve, large, ending):
    server = serve(Site(lambda: open_at(large)))
    clients = [slow_client(server) for _ in range(10)]
    for client in clients:
        client.send(GET)
        assert not client.is_over()
    assert open_files().count(str(large)) == len(clients)
    for client in clients:
        getattr(client, ending)()
    wait_until(lambda: str(large) not in open_files(), "the file to be closed")
    ping(server)


def test_a_client_that_half_closes_gets_the_whole_file(serve, large):
    with slow_client(serve(Site(lambda: open_at(large)))) as client:
        client.send(GET)
        client.half_close()
        answer = client.read_response()
        assert answer.content == large.read_bytes()
        client.read_nothing_more()


def test_a_server_without_a_free_descriptor_still_sends_the_file(serve, path):
    class Full(Site):
        """Takes all remaining descriptors after it has opened its file."""

        def __call__(self, environ, start_response):
            result = super().__call__(environ, start_response)
            if environ["PATH_INFO"] == "/ping":
                return result
            taken = []
            with suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            close = result.filelike.close

            def close_all():
                for descriptor in taken:
                    os.close(descriptor)
                close()

            result.close = close_all
            return result

    site = Full(lambda: open_at(path))
    server = serve(site)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connect(server) as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(open_files()) + 50, hard))
        try:
            client.send(GET + PING)
            assert client.read_response().content == CONTENT
            assert client.read_response().content == b"pong"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    site.wait_for_close()


# --- real files ---------------------------------------------------------------------------------


def temporary(kind):
    def make(path):
        file = kind()
        file.write(path.read_bytes())
        file.seek(0)
        return file

    return make


REAL_FILES = {
    "buffered": lambda path: path.open("rb"),
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "writable": lambda path: path.open("r+b"),
    "TemporaryFile": temporary(tempfile.TemporaryFile),
    "NamedTemporaryFile": temporary(tempfile.NamedTemporaryFile),
}


@pytest.mark.parametrize("kind", REAL_FILES)
def test_a_real_file_holds_no_thread_while_its_client_reads_nothing(serve, large, kind):
    site = Site(lambda: REAL_FILES[kind](large))
    server = serve(site, threads=1)
    with slow_client(server) as client:
        client.send(GET + PING)
        assert not client.is_over()
        site.wait_for_close()
        ping(server)
        assert len(client.received) < LARGE_SIZE, "expected most of the file to be still unsent"
        assert client.read_response().content == large.read_bytes()
        assert client.read_response().content == b"pong"


@pytest.mark.measured
def test_another_client_is_served_while_a_slow_client_reads_its_file(serve, large):
    server = serve(Site(lambda: open_at(large)), threads=1)
    with slow_client(server) as slow, connect(server) as other:
        slow.send(GET)
        served = 0
        while len(slow.received) < 500_000:
            slow.read_some(4_096)
            other.send(PING)
            assert other.read_response().content == b"pong"
            served += 1
        assert slow.read_response().content == large.read_bytes()
    assert served > 20, (
        f"expected the other client to be served during that time, got {served} times"
    )


def packed(module, suffix):
    """A file that does not read from its descriptor."""

    def make(path):
        path = path.with_suffix(suffix)
        path.write_bytes(module.compress(CONTENT))
        return module.open(path)

    return make


def spooled_in_memory(_path):
    return temporary(tempfile.SpooledTemporaryFile)(_path)


def pipe(_path):
    reader, writer = os.pipe()
    with open(writer, "wb") as file:  # noqa: PTH123
        file.write(CONTENT[:50_000])
    return open(reader, "rb")  # noqa: PTH123


def made_as_it_is_read(name):
    """A file that reports no size, or more bytes than it has."""
    return lambda _path: Path(name).open("rb")


class Upper(io.FileIO):
    """A file whose read() is its own."""

    def read(self, size=-1):
        return super().read(size).upper()


class ReadAlone:
    """The smallest object that the file wrapper accepts."""

    def __init__(self, path):
        self._file = io.BytesIO(path.read_bytes())

    def read(self, size):
        return self._file.read(size)


OTHERS = {
    "BytesIO": (lambda path: io.BytesIO(CONTENT), CONTENT),
    "gzip": (packed(gzip, ".gz"), CONTENT),
    "bz2": (packed(bz2, ".bz2"), CONTENT),
    "gzip, buffered": (lambda path: io.BufferedReader(packed(gzip, ".gz")(path)), CONTENT),
    "SpooledTemporaryFile": (temporary(tempfile.SpooledTemporaryFile), CONTENT),
    "pipe": (pipe, CONTENT[:50_000]),
    "/proc": (made_as_it_is_read("/proc/version"), Path("/proc/version").read_bytes()),
    "a device": (made_as_it_is_read("/dev/null"), b""),
    "a read() of its own": (lambda path: Upper(path), CONTENT.upper()),
    "read() alone": (ReadAlone, CONTENT),
}

SYS_FILE = Path("/sys/devices/system/cpu/online")
if SYS_FILE.exists():
    OTHERS["/sys"] = made_as_it_is_read(SYS_FILE), SYS_FILE.read_bytes()


@pytest.mark.parametrize("name", OTHERS)
def test_an_object_that_is_no_real_file_is_read(serve, path, name):
    make, expected = OTHERS[name]
    site = Site(lambda: make(path))
    for answer in exchange(serve(site), GET * 2, 2):
        assert answer.status == 200
        assert answer.content == expected
    if name != "read() alone":
        site.wait_for_close()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.open("r"),
        lambda path: io.StringIO("text"),
        lambda path: path.open("ab"),
        lambda path: path.open("ab", buffering=0),
        lambda path: 5,
    ],
    ids=["text", "StringIO", "not readable", "not readable, raw", "no file"],
)
def test_an_object_whose_read_returns_no_bytes_is_a_500(serve, path, make):
    server = serve(Site(lambda: make(path)))
    answer = exchange(server, GET)[0]
    assert (answer.status, answer.content) == (500, b"Internal Server Error\n")
    ping(server)


def test_a_closed_file_is_a_500(serve, path):
    def closed():
        file = path.open("rb")
        file.close()
        return file

    server = serve(Site(closed))
    assert exchange(server, GET)[0].status == 500
    ping(server)


def test_a_read_that_fails_later_cuts_the_response(serve, path):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise OSError("as the test wants it")
            return super().read(size)

    site = Site(lambda: Failing(bytes(200_000)))
    answer = exchange(serve(site), GET)[0]
    assert (answer.status, answer.complete) == (200, False)
    assert answer.content == bytes(65_536)
    site.wait_for_close()
