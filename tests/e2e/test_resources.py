"""Resources run out, and clients vanish: one request suffers, and the server continues."""

from __future__ import annotations

import shutil
import textwrap
import threading
import time
from contextlib import ExitStack

import pytest

from support import (
    RawClient,
    connect,
    cpu_seconds,
    descriptors_at_rest,
    open_descriptors,
    wait_until,
)

KIB = 1024
MIB = 1024 * KIB
TIMEOUT = 10.0
LARGE = bytes(range(256)) * (8 << 12)  # 8 MiB
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


def port_of(command):
    return int(command.url.rpartition(":")[2])


def assert_serves(port):
    with RawClient(port) as client:
        client.send(GET)
        assert client.read_response().status == 200, "expected the server to continue"


# --- descriptors --------------------------------------------------------------------------------

DESCRIPTORS = 40
FEW_DESCRIPTORS = f"""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, hard))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]
"""


@pytest.fixture
def crowded(picowsgi, tmp_path):
    """A process without a free descriptor: the clients that it serves, and the rest."""
    (tmp_path / "app.py").write_text(textwrap.dedent(FEW_DESCRIPTORS))
    options = ["--timeout-keep-alive=60", "--timeout-head=60", "--timeout-graceful=1"]
    command = picowsgi(*options, "app:app", directory=tmp_path)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port_of(command))) for _ in range(DESCRIPTORS)]
        for client in clients:
            client.send(GET)
        served = []

        def all_are_in_use():
            more = [one for one in clients if one not in served and one.read_some(1)]
            served.extend(more)
            return not more and served and open_descriptors(command.process.pid) == DESCRIPTORS

        wait_until(all_are_in_use, f"{DESCRIPTORS} open descriptors, some of them of clients")
        yield command, served, [client for client in clients if client not in served]


def assert_does_not_spin(process, seconds):
    before, begin = cpu_seconds(process), time.monotonic()
    time.sleep(seconds)
    used, passed = cpu_seconds(process) - before, time.monotonic() - begin
    assert used < passed * 0.1, (
        f"expected the server to wait, it computed for {used:.2f} s of {passed:.2f} s"
    )


@pytest.mark.measured
def test_without_free_descriptors_the_server_pauses_accepting_and_does_not_spin(crowded):
    command, served, waiting = crowded
    assert served
    assert waiting
    assert_does_not_spin(command.process.pid, 1.0)
    for client in served:
        assert client.read_response().status == 200
        client.send(GET)
        assert client.read_response().status == 200, "expected the others to be served"
    assert not any(client.read_some(1) for client in waiting)


def test_accepting_resumes_when_a_connection_closes(crowded):
    _, served, waiting = crowded
    while waiting:
        served.pop(0).close()
        wait_until(lambda: any(one.read_some(1) for one in waiting), "one more client to be served")
        [client] = [one for one in waiting if one.received]
        assert client.read_response().status == 200
        waiting.remove(client)
        served.append(client)


def test_a_server_without_free_descriptors_can_be_stopped_and_does_not_spin(crowded):
    command, served, _ = crowded
    served[0].send(GET[:-2])  # the server waits for this time
    command.process.terminate()
    assert_does_not_spin(command.process.pid, 0.5)
    assert command.wait() == 0


# --- room on the disk ---------------------------------------------------------------------------

FILE_MOST = MIB
SMALL_FILES = f"""
    import resource

    # A longer file fails as on a full disk (CPython ignores the signal, too).
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_MOST}, hard))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % len(environ["wsgi.input"].read())]
"""


def with_length(size):
    return POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size)


def chunked(size):
    coded = b"%x\r\n%s\r\n0\r\n\r\n" % (size, bytes(size))
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + coded


FRAMINGS = [pytest.param(with_length, id="length"), pytest.param(chunked, id="chunked")]


@pytest.fixture
def storing(picowsgi, tmp_path):
    """A process that can write files of 1 MiB in a directory of its own; returns both."""
    (tmp_path / "app.py").write_text(textwrap.dedent(SMALL_FILES))
    directory = tmp_path / "temporary"
    directory.mkdir()
    environ = {"TMPDIR": str(directory)}
    options = ["--body-memory", "256K"]
    return picowsgi(*options, "app:app", directory=tmp_path, environ=environ), directory


def assert_stored(port, data, size):
    with RawClient(port) as client:
        client.send(data)
        response = client.read_response()
        assert (response.status, response.content) == (200, b"%d" % size)


def assert_not_stored(port, data):
    with RawClient(port) as client:
        client.send(data)
        response = client.read_response()
        assert (response.status, response.complete) == (507, True)
        assert response.tokens("Connection") == ["close"]
        client.read_nothing_more()


@pytest.mark.parametrize("frame", FRAMINGS)
def test_content_that_does_not_fit_on_the_disk_is_a_507_and_the_next_request_is_served(
    storing, frame
):
    command, directory = storing
    port, process = port_of(command), command.process.pid
    before = open_descriptors(process)
    assert_stored(port, frame(FILE_MOST), FILE_MOST)
    for size in (FILE_MOST + 1, 20 * MIB):
        assert_not_stored(port, frame(size))
        assert_serves(port)
        assert_stored(port, frame(FILE_MOST), FILE_MOST)
    wait_until(lambda: open_descriptors(process) == before, "the files to be closed")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("frame", FRAMINGS)
def test_content_without_a_temporary_directory_is_a_507_and_the_next_request_is_served(
    storing, frame
):
    command, directory = storing
    port = port_of(command)
    shutil.rmtree(directory)
    assert_not_stored(port, frame(512 * KIB))
    assert_stored(port, frame(100), 100)
    directory.mkdir()
    assert_stored(port, frame(512 * KIB), 512 * KIB)


# --- clients that vanish ------------------------------------------------------------------------


class Site:
    """Applications that a client can leave at any moment; they record each close."""

    def __init__(self, directory):
        self.running = threading.Event()
        self.left = threading.Event()
        self.closed = threading.Event()
        self.file = directory / "file"
        self.file.write_bytes(LARGE)

    def __call__(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        self.wrapper = environ["wsgi.file_wrapper"]
        name = environ["PATH_INFO"].strip("/")
        return getattr(self, name or "hello")()

    def hello(self):
        return [b"hello"]

    def large(self):
        return [LARGE]

    def wait(self):
        self.running.set()
        assert self.left.wait(TIMEOUT)
        return [b"too late"]

    def wait_large(self):
        self.wait()
        return [LARGE, LARGE]

    def wait_streamed(self):
        self.wait()
        return self.streamed()

    def streamed(self):
        try:
            while True:
                yield LARGE[:100_000]
        finally:
            self.closed.set()

    def sent_file(self):
        return self.wrapper(self.file.open("rb"))


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def to(name):
    return GET.replace(b"/", b"/" + name, 1)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing sent"),
        pytest.param(GET[:7], id="in the request line"),
        pytest.param(GET[:-2], id="in the fields"),
        pytest.param(GET + GET[:-2], id="in the second head"),
        pytest.param(with_length(1000)[:-1], id="in the content"),
        pytest.param(chunked(1000)[:-1], id="in the chunked content"),
        pytest.param(with_length(MIB)[:-1], id="in the content in a file"),
        pytest.param(chunked(MIB)[:-1], id="in the chunked content in a file"),
        pytest.param(POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", id="asked for"),
        pytest.param(POST + b"Content-Length: x\r\n\r\n", id="refused"),
        pytest.param(with_length(20 * MIB), id="refused and sending"),
        pytest.param(GET, id="idle"),
        pytest.param(GET * 100, id="pipelined"),
        pytest.param(to(b"large"), id="in a finished response"),
        pytest.param(to(b"large") * 3, id="in pipelined responses"),
        pytest.param(to(b"sent_file"), id="in a file"),
        pytest.param(to(b"streamed"), id="in a streamed response"),
    ],
)
@pytest.mark.parametrize("way", ["reset", "close"])
def test_a_client_that_vanishes_leaves_nothing_open(serve, site, data, way):
    server = serve(site, max_body_size=10 * MIB, timeout_write=60, timeout_body=60)
    before = descriptors_at_rest()
    with RawClient(server.port, receive_buffer=4096) as client:
        client.send(data)
        if data:
            wait_until(lambda: open_descriptors() > before + 1, "the connection to be accepted")
        if data.endswith(b"\r\n\r\n"):
            wait_until(lambda: client.read_some(1), "the first byte of a response")
        getattr(client, way)()
        wait_until(lambda: open_descriptors() == before, "its descriptors to be closed")
    if b"streamed" in data:
        assert site.closed.wait(TIMEOUT), "expected close() to be called"
    assert_serves(server.port)


@pytest.mark.parametrize("name", [b"wait", b"wait_large", b"wait_streamed"])
@pytest.mark.parametrize("way", ["reset", "close"])
def test_a_client_that_vanishes_while_the_application_runs_leaves_nothing_open(
    serve, site, name, way
):
    server = serve(site)
    before = descriptors_at_rest()
    with connect(server) as client:
        client.send(to(name))
        assert site.running.wait(TIMEOUT)
        getattr(client, way)()
        site.left.set()
        wait_until(lambda: open_descriptors() == before, "its descriptors to be closed")
    if name == b"wait_streamed":
        assert site.closed.wait(TIMEOUT), "expected close() to be called"
    assert_serves(server.port)


def test_a_thousand_resets_at_any_moment_leave_nothing_open(serve, site):
    server = serve(site)
    before = descriptors_at_rest()
    requests = [GET, to(b"large"), to(b"sent_file"), with_length(MIB), chunked(1000)]
    for number in range(1000):
        client = connect(server)
        data = requests[number % len(requests)]
        client.send(data[: 1 + number * 37 % len(data)])
        if number % 3:
            client.read_some(number)
        client.reset()
    wait_until(lambda: open_descriptors() == before, "all descriptors to be closed")
    assert_serves(server.port)


# --- half-closes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "contents"),
    [
        pytest.param(GET, [b"hello"], id="no content"),
        pytest.param(with_length(1000), [b"hello"], id="content"),
        pytest.param(chunked(MIB), [b"hello"], id="chunked content in a file"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", [b"hello"], id="HTTP/1.0"),
        pytest.param(GET * 50, [b"hello"] * 50, id="pipelined"),
        pytest.param(to(b"large") + GET, [LARGE, b"hello"], id="a large response, then another"),
        pytest.param(to(b"sent_file"), [LARGE], id="a file"),
        pytest.param(GET + GET[:-2], [b"hello"], id="half a request after a whole one"),
    ],
)
@pytest.mark.parametrize("slowly", [False, True], ids=["", "reading slowly"])
def test_a_half_closed_client_gets_all_of_its_responses(serve, site, data, contents, slowly):
    server = serve(site)
    with RawClient(server.port, receive_buffer=65536 if slowly else None) as client:
        client.send(data)
        client.half_close()
        for content in contents:
            assert client.read_response().content == content
        client.read_nothing_more()


def test_a_client_that_half_closes_while_the_application_runs_gets_its_response(serve, site):
    with connect(serve(site)) as client:
        client.send(to(b"wait_large"))
        assert site.running.wait(TIMEOUT)
        client.half_close()
        site.left.set()
        assert client.read_response().content == LARGE * 2
        client.read_nothing_more()


@pytest.mark.parametrize("data", [b"", GET[:-2], with_length(10)[:-1], chunked(10)[:-1]])
def test_a_client_that_half_closes_before_its_request_is_complete_gets_the_end(serve, site, data):
    with connect(serve(site)) as client:
        client.send(data)
        client.half_close()
        client.read_nothing_more()
