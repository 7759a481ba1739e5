"""Request content: `wsgi.input` in memory and in a file, and the cost of an upload."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess

import pytest

from soak import process
from support import PYPY, RawClient, connect, exchange, resident_bytes, wait_until

TEXT = ("Content-Type", "text/plain; charset=utf-8")
TIMEOUT = 30.0
MEBIBYTE = process.MEBIBYTE
# curl runs without the library that is preloaded into Python, such as a sanitizer.
CURL_ENVIRON = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}

LINES = b"first\n" + b"x" * 3_000 + b"\n\n" + bytes(range(256)) * 9 + b"\nlast, without an end"


def with_length(content):
    return b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)


def chunked(content, size=700):
    """Content in chunks of `size` bytes, with an extension and a trailer field."""
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(
        [
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            *(b"%x;a=b\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks),
            b"0\r\nX-Trailer: dropped\r\n\r\n",
        ]
    )


FRAMINGS = pytest.mark.parametrize("framed", [with_length, chunked])
# With one byte in memory an upload of any size is in a file.
PLACES = pytest.mark.parametrize("memory", [MEBIBYTE, 1], ids=["memory", "file"])


def open_temporary_files():
    """The open files without a name of this process: one of them has the content."""
    return sorted(name for name in process.open_files() if "/#" in name)


# --- wsgi.input ---------------------------------------------------------------------------------


def read_into(source, size):
    target = bytearray(size)
    count = source.readinto(target)
    return count, bytes(target)


def read_as_text(source):
    text = io.TextIOWrapper(source, "latin-1", newline="")
    content = text.read()
    text.detach()  # otherwise it would close the input
    return content


READINGS = {
    "read()": lambda source: source.read(),
    "read(-1)": lambda source: source.read(-1),
    "read(None)": lambda source: source.read(None),
    "read(0)": lambda source: source.read(0),
    "read(7)": lambda source: source.read(7),
    "read of more than there is": lambda source: source.read(1_000_000),
    "a second read()": lambda source: (source.read(), source.read(), source.read(5)),
    "read(1) to the end": lambda source: list(iter(lambda: source.read(1), b"")),
    "read(1000) to the end": lambda source: list(iter(lambda: source.read(1_000), b"")),
    "readline()": lambda source: source.readline(),
    "readline() to the end": lambda source: list(iter(source.readline, b"")),
    "readline() after the end": lambda source: (source.read(), source.readline()),
    "readline(3), readline(10)": lambda source: (source.readline(3), source.readline(10)),
    "readline(-1)": lambda source: source.readline(-1),
    "readline(0)": lambda source: source.readline(0),
    "readlines()": lambda source: source.readlines(),
    "readlines(10)": lambda source: source.readlines(10),
    "readlines() twice": lambda source: (source.readlines(), source.readlines()),
    "iteration": list,
    "iteration after read(2)": lambda source: (source.read(2), list(source)),
    "next": lambda source: (next(source), next(source), source.read(4)),
    "readinto": lambda source: (read_into(source, 10), read_into(source, 100_000)),
    "readinto at the end": lambda source: (source.read(), read_into(source, 10)),
    "tell": lambda source: (source.tell(), source.readline(), source.tell()),
    "tell at the end": lambda source: (source.read(), source.tell()),
    "seek to the start": lambda source: (source.read(), source.seek(0), source.read()),
    "seek forwards": lambda source: (source.seek(2_000), source.read(5)),
    "seek backwards": lambda source: (source.seek(-5, io.SEEK_END), source.read()),
    "seek from here": lambda source: (source.read(9), source.seek(-4, io.SEEK_CUR), source.read(8)),
    "the size by seek": lambda source: (source.seek(0, io.SEEK_END), source.read()),
    "seek beyond the end": lambda source: (source.seek(1_000_000), source.read()),
    "what it can do": lambda source: (source.readable(), source.seekable(), source.closed),
    "as a text": read_as_text,
}


@PLACES
@FRAMINGS
@pytest.mark.parametrize("name", READINGS)
def test_the_input_reads_like_a_file_wherever_it_is_kept(serve, name, framed, memory):
    results = []

    def application(environ, start_response):
        results.append(READINGS[name](environ["wsgi.input"]))
        start_response("204 No Content", [])
        return []

    server = serve(application, body_memory=memory)
    assert exchange(server, framed(LINES))[0].status == 204
    assert results == [READINGS[name](io.BytesIO(LINES))]


@PLACES
@FRAMINGS
@pytest.mark.parametrize("size", [0, 1, 4_095, 16_384, 131_072, 262_144, 262_145, 1_000_000])
def test_content_of_any_size_is_complete_and_its_length_known(serve, framed, memory, size):
    content = (b"0123456789abcde" * 70_000)[:size]
    seen = []

    def application(environ, start_response):
        seen.append((environ, environ["wsgi.input"].read()))
        start_response("204 No Content", [])
        return []

    server = serve(application, body_memory=memory)
    assert exchange(server, framed(content))[0].status == 204
    [(environ, received)] = seen
    assert environ["CONTENT_LENGTH"] == str(size)
    assert environ["wsgi.input_terminated"] is True
    assert received == content, f"expected the {size} bytes sent, got {len(received)} others"
    unwanted = {"HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_LENGTH", "HTTP_X_TRAILER"} & set(environ)
    assert not unwanted, f"expected no such keys, got {unwanted}"


@PLACES
def test_consecutive_uploads_on_one_connection_do_not_mix(serve, memory):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [environ["wsgi.input"].read()]

    contents = [bytes([number]) * (number * 997 % 5_000) for number in range(1, 60)]
    data = b"".join((with_length, chunked)[number % 2](one) for number, one in enumerate(contents))
    answers = exchange(serve(application, body_memory=memory), data, len(contents))
    assert [answer.content for answer in answers] == contents


# --- the file for content -----------------------------------------------------------------------


def reads_some(environ, start_response):
    content = environ["wsgi.input"].read(10)
    start_response("200 OK", [TEXT])
    return [content]


def reads_in_a_generator(environ, start_response):
    start_response("200 OK", [TEXT])
    yield environ["wsgi.input"].read(3)
    yield environ["wsgi.input"].read(7)


def closes_it(environ, start_response):
    environ["wsgi.input"].close()
    start_response("200 OK", [TEXT])
    return [b"0123456789"]


def raises_at_once(environ, start_response):
    raise RuntimeError("as the test wants it")


def raises_later(environ, start_response):
    start_response("200 OK", [TEXT])
    yield b"0123456789"
    raise RuntimeError("as the test wants it")


def empties_its_environ(environ, start_response):
    environ.clear()
    start_response("200 OK", [TEXT])
    return [b"0123456789"]


APPLICATIONS = [
    reads_some,
    reads_in_a_generator,
    closes_it,
    raises_at_once,
    raises_later,
    empties_its_environ,
]


@FRAMINGS
@pytest.mark.parametrize("application", APPLICATIONS)
def test_the_file_of_the_content_is_closed_with_its_request(serve, application, framed):
    during, inputs = [], []

    def watched(environ, start_response):
        during.append(len(open_temporary_files()))
        inputs.append(environ["wsgi.input"])
        return application(environ, start_response)

    before = len(open_temporary_files())
    server = serve(watched, body_memory=1, threads=1)
    for _ in range(3):
        expected = (500, b"Internal Server Error\n")
        if application is not raises_at_once:
            expected = (200, b"0123456789")
        answer = exchange(server, framed(b"0123456789" * 100))[0]
        assert (answer.status, answer.content) == expected
    wait_until(lambda: all(one.closed for one in inputs), "wsgi.input to be closed at the end")
    assert during == [before + 1] * 3, "expected one temporary file while a request runs"
    assert len(open_temporary_files()) == before


def test_the_application_may_read_the_content_file_until_its_iterable_is_closed(serve):
    read = []

    class Content(list):
        def __init__(self, environ):
            super().__init__([b"content"])
            self._input = environ["wsgi.input"]

        def close(self):
            read.append(self._input.read())

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return Content(environ)

    exchange(serve(application, body_memory=1), with_length(LINES))
    wait_until(lambda: read, "close() to be called")
    assert read == [LINES]


@FRAMINGS
@pytest.mark.parametrize("ending", ["close", "half_close", "reset"])
def test_an_upload_that_breaks_off_leaves_no_file_and_calls_no_application(serve, framed, ending):
    calls = []

    def application(environ, start_response):
        calls.append(environ["CONTENT_LENGTH"])
        start_response("204 No Content", [])
        return []

    before = open_temporary_files()
    server = serve(application, body_memory=1)
    data = framed(b"x" * 300_000)
    for size in (len(data) // 2, len(data) - 1):
        client = connect(server)
        client.send(data[:size])
        wait_until(lambda: open_temporary_files() != before, "a file during the upload")
        getattr(client, ending)()
        wait_until(lambda: open_temporary_files() == before, "no file after the upload broke off")
        client.close()
    assert not calls, "expected no call for an incomplete upload"


@FRAMINGS
def test_content_over_the_limit_leaves_no_file(serve, framed):
    before = open_temporary_files()

    def application(environ, start_response):
        start_response("204 No Content", [])
        return []

    server = serve(application, body_memory=1, max_body_size=100_000)
    with connect(server) as client:
        client.send(framed(b"x" * 100_001))
        assert client.read_response().status == 413
        client.read_nothing_more()
    assert exchange(server, framed(b"x" * 100_000))[0].status == 204
    assert open_temporary_files() == before


# --- large uploads ------------------------------------------------------------------------------


def digesting(environ, start_response):
    """Answer with the length, the number of bytes read, and their digest."""
    digest, size = hashlib.sha256(), 0
    while block := environ["wsgi.input"].read(1 << 16):
        digest.update(block)
        size += len(block)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([environ.get("CONTENT_LENGTH"), size, digest.hexdigest()]).encode()]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file of slightly more than 64 MiB, and its digest."""
    path = tmp_path_factory.mktemp("upload") / "large"
    block = hashlib.sha512(b"seed").digest() * (MEBIBYTE // 64)
    with path.open("wb") as file:
        for number in range(64):
            file.write(number.to_bytes(8, "big") + block[8:])
        file.write(b"the end")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def curl(*arguments, stdin=subprocess.DEVNULL):
    program = shutil.which("curl")
    assert program, "this test needs curl"
    done = subprocess.run(
        [program, "-sS", "--max-time", "30", "--noproxy", "*", *map(str, arguments)],
        stdin=stdin,
        capture_output=True,
        env=CURL_ENVIRON,
    )
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr.decode()}"
    return done.stdout


def test_curl_uploads_64_mib_with_a_length(serve, large):
    path, digest = large
    size = path.stat().st_size
    assert json.loads(curl("-T", path, serve(digesting).url)) == [str(size), size, digest]


def test_curl_uploads_64_mib_in_chunks(serve, large):
    path, digest = large
    size = path.stat().st_size
    with path.open("rb") as file:
        answer = json.loads(curl("-T", "-", serve(digesting).url, stdin=file))
    assert answer == [str(size), size, digest]


@pytest.mark.parametrize("fields", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["", "chunked"])
def test_curl_uploads_slowly_and_other_clients_are_served_during_that_time(serve, tmp_path, fields):
    content = hashlib.sha512(b"slow").digest() * (2 * MEBIBYTE // 64)
    path = tmp_path / "content"
    path.write_bytes(content)
    server = serve(digesting)
    program = shutil.which("curl")
    arguments = ["-sS", "--noproxy", "*", "--max-time", "30", "--limit-rate", "3M", *fields]
    with subprocess.Popen(
        [program, *arguments, "-T", str(path), server.url],
        stdout=subprocess.PIPE,
        env=CURL_ENVIRON,
    ) as slow:
        served = 0
        with RawClient(server.port) as client:
            while slow.poll() is None:
                client.send(with_length(b"quick"))
                assert client.read_response().status == 200
                served += 1
        answer = json.loads(slow.stdout.read())
    assert answer == [str(len(content)), len(content), hashlib.sha256(content).hexdigest()]
    assert served > 20, f"expected many requests to be served during the upload, got {served}"


UPLOADER = """
def application(environ, start_response):
    size = 0
    while block := environ["wsgi.input"].read(1 << 16):
        size += len(block)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % size]
"""


def upload_blocks(client, count, with_chunks):
    """Send `count` MiB, and return how many bytes the application has read."""
    block = b"x" * MEBIBYTE
    framing = b"Content-Length: %d" % (count * MEBIBYTE)
    if with_chunks:
        framing = b"Transfer-Encoding: chunked"
        block = b"%x\r\n%s\r\n" % (MEBIBYTE, block)
    client.send(b"PUT / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % framing)
    for _ in range(count):
        assert client.send(block), "expected the server to take all of the content"
    if with_chunks:
        client.send(b"0\r\n\r\n")
    return int(client.read_response().content)


@pytest.mark.measured
@pytest.mark.unsanitized  # a sanitizer keeps freed memory
@pytest.mark.parametrize("with_chunks", [False, True], ids=["length", "chunked"])
def test_an_upload_of_256_mib_adds_little_to_the_memory(picowsgi, tmp_path, with_chunks):
    (tmp_path / "uploader.py").write_text(UPLOADER)
    command = picowsgi("uploader:application", directory=tmp_path)
    server = command.process.pid
    with RawClient(int(command.url.rpartition(":")[2]), timeout=TIMEOUT) as client:
        assert upload_blocks(client, 1, with_chunks) == MEBIBYTE  # all modules are loaded now
        before = resident_bytes(server)
        process.forget_greatest_memory(server)
        assert upload_blocks(client, 256, with_chunks) == 256 * MEBIBYTE
    added = process.greatest_memory(server) - before
    most = 32 if PYPY else 2  # MiB; PyPy's collector and compiler take more over time
    assert added < most * MEBIBYTE, f"expected less than {most} MiB, got {added / MEBIBYTE:.1f}"
