"""Each limit of the option table: a value at the limit, and one past it with its status."""

from __future__ import annotations

import socket
import stat
import struct
import sys
import tempfile
import textwrap
import time
from os import fstat

import pytest

from support import (
    RawClient,
    connect,
    descriptors_at_rest,
    exchange,
    open_descriptors,
    resident_bytes,
    wait_until,
)

KIB = 1024
MIB = 1024 * KIB
UPLOAD = 20 * MIB
TARGET_MOST = 16 * KIB
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


class Application:
    """Echoes the content, and keeps the environ of each call with the result of reading it."""

    def __init__(self):
        self.calls = []

    def __call__(self, environ, start_response):
        stream = environ["wsgi.input"]
        try:
            kept_in = fstat(stream.fileno())
        except OSError:  # io.UnsupportedOperation: no file
            kept_in = None
        self.calls.append((environ, kept_in))
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [stream.read()]


@pytest.fixture
def application():
    return Application()


def assert_refused(server, application, data, status):
    """Send `data` and check the whole response: its status, its length, and then the end."""
    calls = len(application.calls)
    with connect(server) as client:
        client.send(data)
        response = client.read_response()
        assert (response.status, response.interim) == (status, ())
        assert response.complete
        assert response.tokens("Connection") == ["close"]
        client.read_nothing_more()
    assert len(application.calls) == calls, (
        "expected no call of the application for a refused request"
    )


def assert_served(server, data, content=b""):
    response = exchange(server, data)[0]
    assert (response.status, response.content) == (200, content)


# --- the head -----------------------------------------------------------------------------------


def head_of_size(size):
    start, end = b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n\r\n"
    return start + b"x" * (size - len(start + end)) + end


@pytest.mark.parametrize("limit", [256, 1000, 16 * KIB, 64 * KIB, 100 * KIB])
def test_a_head_at_the_limit_is_served_and_one_more_byte_is_a_431(serve, application, limit):
    server = serve(application, max_head_size=limit)
    assert_served(server, head_of_size(limit))
    assert_served(server, b"\r\n" + head_of_size(limit))  # the empty line does not count
    assert_served(server, head_of_size(limit - 1))
    assert_refused(server, application, head_of_size(limit + 1), 431)


def test_the_size_of_a_head_does_not_count_bytes_before_or_after_it(serve, application):
    server = serve(application, max_head_size=300)
    head = head_of_size(300)
    assert [one.status for one in exchange(server, head * 20, 20)] == [200] * 20
    post = POST + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000
    assert [one.status for one in exchange(server, (post + head) * 3, 6)] == [200] * 6


def test_a_head_that_is_too_large_is_refused_before_its_end_arrives(serve, application):
    server = serve(application, max_head_size=1000)
    assert_refused(server, application, head_of_size(2000)[:1000], 431)


def test_a_second_head_that_is_too_large_is_refused_too(serve, application):
    server = serve(application, max_head_size=1000)
    for again in (b"", GET):
        with connect(server) as client:
            client.send(GET + again + head_of_size(1001))
            assert client.read_response().status == 200
            if again:
                assert client.read_response().status == 200
            assert client.read_response().status == 431
            client.read_nothing_more()


def request_to(size):
    return b"GET /" + b"t" * (size - 1) + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_target_of_16_kib_is_served_and_one_more_byte_is_a_414(serve, application):
    server = serve(application)
    assert_served(server, request_to(TARGET_MOST))
    assert len(application.calls[0][0]["REQUEST_URI"]) == TARGET_MOST
    assert_refused(server, application, request_to(TARGET_MOST + 1), 414)


def test_a_target_over_16_kib_in_a_head_over_its_limit_is_a_414(serve, application):
    server = serve(application)
    assert_refused(server, application, request_to(70_000), 414)
    assert_refused(server, application, request_to(70_000)[:-30], 414)


def test_a_target_within_16_kib_in_a_head_over_its_limit_is_a_431(serve, application):
    server = serve(application, max_head_size=1000)
    assert_refused(server, application, request_to(2000), 431)


@pytest.mark.parametrize("limit", [1, 2, 100, 1024])
def test_as_many_fields_as_the_limit_are_served_and_one_more_is_a_431(serve, application, limit):
    server = serve(application, max_fields=limit)
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (limit - 1)
    assert_served(server, head + b"\r\n")
    assert_refused(server, application, head + b"X: y\r\n\r\n", 431)


def test_dropped_fields_count_too(serve, application):
    server = serve(application, max_fields=3)
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\nX_Y: z\r\n"
    assert_served(server, head + b"\r\n")
    assert_refused(server, application, head + b"X_Y: z\r\n\r\n", 431)


# --- the content --------------------------------------------------------------------------------


def with_length(content):
    return POST + b"Content-Length: %d\r\n\r\n" % len(content) + content


def chunked(content, size=None):
    chunks = [content[at : at + (size or MIB)] for at in range(0, len(content), size or MIB)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


FRAMINGS = [
    pytest.param(with_length, id="length"),
    pytest.param(chunked, id="one chunk"),
    pytest.param(lambda content: chunked(content, 1), id="chunks of a byte"),
]


@pytest.mark.parametrize("frame", FRAMINGS)
@pytest.mark.parametrize("limit", [1, 1000])
def test_content_at_the_limit_is_served_and_one_more_byte_is_a_413(
    serve, application, frame, limit
):
    server = serve(application, max_body_size=limit)
    assert_served(server, frame(b"x" * limit), b"x" * limit)
    assert_refused(server, application, frame(b"x" * (limit + 1)), 413)


def test_declared_content_over_the_limit_is_a_413_before_any_of_it_arrives(serve, application):
    server = serve(application, max_body_size=1000)
    assert_refused(server, application, POST + b"Content-Length: 1001\r\n\r\n", 413)


def test_a_chunk_size_over_the_limit_is_a_413_before_any_of_the_chunk_arrives(serve, application):
    server = serve(application, max_body_size=1000)
    coding = b"Transfer-Encoding: chunked\r\n\r\n"
    assert_refused(server, application, POST + coding + b"3e9\r\n", 413)
    assert_refused(
        server, application, POST + coding + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n", 413
    )


def test_the_end_of_chunked_content_does_not_count_as_content(serve, application):
    server = serve(application, max_body_size=1000)
    data = chunked(b"x" * 1000).replace(b"0\r\n\r\n", b"000;a=b\r\nTrailer: x\r\n\r\n")
    assert_served(server, data, b"x" * 1000)


def test_content_in_memory_does_not_count_against_the_limit_of_the_next_request(serve, application):
    server = serve(application, max_body_size=1000)
    for frame in (with_length, chunked):
        responses = exchange(server, frame(b"x" * 1000) * 5, 5)
        assert [one.status for one in responses] == [200] * 5


@pytest.mark.parametrize("length", [b"1073741825", b"9223372036854775807"])
def test_with_the_limit_0_the_server_asks_for_content_of_any_declared_size(
    serve, application, length
):
    server = serve(application, max_body_size=0)
    with connect(server) as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: " + length + b"\r\n\r\n")
        assert client.read_interim() == 100
        client.send(b"x" * MIB)
    with connect(server) as client:
        coding = b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(POST + coding)
        assert client.read_interim() == 100
        client.send(b"%x\r\n" % int(length) + b"x" * MIB)
    assert_served(server, with_length(b"x" * 2 * MIB), b"x" * 2 * MIB)


def test_the_default_limit_is_1_gib(serve, application):
    server = serve(application)
    with connect(server) as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 1073741824\r\n\r\n")
        assert client.read_interim() == 100
    assert_refused(server, application, POST + b"Content-Length: 1073741825\r\n\r\n", 413)


# --- content in memory and in files -------------------------------------------------------------


@pytest.fixture
def temporary_directory(tmp_path, monkeypatch):
    """The directory in which the server creates its temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("frame", FRAMINGS)
@pytest.mark.parametrize("limit", [0, 1, 5000])
def test_content_is_in_memory_up_to_the_limit_and_beyond_it_in_a_file_without_a_name(
    serve, application, temporary_directory, frame, limit
):
    server = serve(application, body_memory=limit)
    content = bytes(number % 251 for number in range(limit + 1))
    with connect(server) as client:
        client.send(frame(content[:limit]))
        assert client.read_response().content == content[:limit]
        before = descriptors_at_rest()
        client.send(frame(content))
        assert client.read_response().content == content
        wait_until(lambda: open_descriptors() == before, "the temporary file to be closed")
    (small, in_memory), (large, in_file) = application.calls
    assert in_memory is None, f"expected {limit} bytes in memory"
    assert in_file is not None, f"expected {limit + 1} bytes in a file"
    assert in_file.st_nlink == 0, "expected a file without a name"
    assert stat.S_IMODE(in_file.st_mode) == 0o600
    assert (in_file.st_size, large["CONTENT_LENGTH"]) == (limit + 1, str(limit + 1))
    assert small["CONTENT_LENGTH"] == str(limit)
    assert list(temporary_directory.iterdir()) == []


@pytest.mark.parametrize("frame", FRAMINGS)
def test_all_requests_share_the_memory_for_content_and_the_rest_goes_to_files(
    serve, application, frame
):
    server = serve(application, body_memory=5000, body_memory_total=9000)
    content = b"x" * 5000
    with connect(server) as first, connect(server) as second:
        first.send(frame(content)[:-1])
        # The server reads it before a request that is sent after another response: it may have read
        # that when it accepted its connection, before the bytes on the first one.
        second.send(frame(b""))
        second.read_response()
        for _ in range(2):
            second.send(frame(content))
            assert second.read_response().content == content
        first.send(frame(content)[-1:])
        assert first.read_response().content == content
        second.send(frame(content))
        assert second.read_response().content == content
    kinds = [file is None for _, file in application.calls[1:]]
    assert kinds == [False, False, True, True], (
        "expected files while another request has the memory"
    )


def test_half_received_content_has_no_named_file_and_its_file_goes_with_its_client(
    serve, application, temporary_directory
):
    server = serve(application, body_memory=1000)
    before = descriptors_at_rest()
    with connect(server) as client:
        client.send(with_length(b"x" * MIB)[:-1])
        wait_until(lambda: open_descriptors() == before + 3, "content to be in a file")
        assert list(temporary_directory.iterdir()) == []
    wait_until(lambda: open_descriptors() == before, "the file to be closed")
    assert not application.calls


# --- responses ----------------------------------------------------------------------------------

FAST_GENERATOR = """
    import os
    from pathlib import Path

    item = b"x" * int(os.environ["ITEM"])

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        with open("given", "wb", buffering=0) as report:
            given = 0
            while given < 1 << 30:
                given += len(item)
                os.pwrite(report.fileno(), b"%20d" % given, 0)
                yield item
"""


@pytest.mark.measured
@pytest.mark.unsanitized
@pytest.mark.parametrize("item", [100, 10_000, 100_000, 3 * MIB])
def test_a_generator_faster_than_its_client_is_paused_and_memory_stays_flat(
    picowsgi, tmp_path, item
):
    (tmp_path / "app.py").write_text(textwrap.dedent(FAST_GENERATOR))
    options = ["--response-buffer", str(MIB), "--response-spool", "0", "--timeout-write", "60"]
    command = picowsgi(*options, "app:app", directory=tmp_path, environ={"ITEM": str(item)})
    process, report = command.process.pid, tmp_path / "given"

    def given():
        return int(report.read_bytes() or b"0") if report.exists() else 0

    def wait_until_stopped():
        last, since = given(), time.monotonic()
        while time.monotonic() < since + 0.2:
            if (now := given()) != last:
                last, since = now, time.monotonic()
            assert last < 64 * MIB, "expected the generator to be paused"
            time.sleep(0.005)
        return last

    before = resident_bytes(process)
    with RawClient(int(command.url.rpartition(":")[2]), receive_buffer=4096) as client:
        client.send(GET)
        first = wait_until_stopped()
        held = MIB + 2 * item
        by_the_system = 6 * MIB  # the 4 MiB of wmem, and the bytes on their way
        assert first < held + by_the_system, "expected the generator to be paused near the limit"
        begin, got = time.monotonic(), 0
        while time.monotonic() < begin + 0.5:
            got += client.read_some(16 * KIB)
            time.sleep(0.001)
        assert wait_until_stopped() < got + held + by_the_system
        grown = resident_bytes(process) - before
        assert grown < held + MIB, f"expected flat memory, it grew by {grown} bytes"


def test_memory_for_content_that_the_application_gives_at_once_is_not_limited(serve):
    items = [b"a" * MIB, b"b" * MIB, b"c" * MIB]

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return list(items)

    # Without back-pressure: the server must serve others although no client reads.
    server = serve(application, response_buffer=KIB)
    with RawClient(server.port, receive_buffer=4096) as slow:
        slow.send(GET)
        wait_until(lambda: slow.read_some(1), "the response to begin")
        assert exchange(server, GET)[0].content == b"".join(items)
        assert slow.read_response().content == b"".join(items)


# --- connections --------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
def test_a_connection_past_the_limit_waits_until_another_one_closes(serve, application, limit):
    server = serve(application, max_connections=limit)
    clients = [connect(server) for _ in range(limit)]
    for client in clients:  # the beginning of the next request has always arrived
        client.send(GET + GET[:5])
        assert client.read_response().status == 200
    with connect(server) as late:
        late.send(GET)
        for _ in range(10):
            for client in clients:
                client.send(GET[5:] + GET[:5])
                assert client.read_response().status == 200
        assert not late.read_some(1), "expected the last client to wait"
        clients.pop().close()
        assert late.read_response().status == 200
        for client in clients:
            client.send(GET[5:])
            assert client.read_response().status == 200, (
                "expected the other connections to stay open"
            )
    for client in clients:
        client.close()


def test_waiting_connections_are_served_in_turn(serve, application):
    server = serve(application, max_connections=2)
    clients = [connect(server) for _ in range(20)]
    for client in clients:
        client.send(GET.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"))
    for client in clients:
        assert client.read_response().status == 200
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the backlog")
def test_the_server_passes_the_backlog_to_the_system(serve, application):
    for backlog in (5, 77):
        sock = serve(application, backlog=backlog).sockets[0]
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        # tcpi_sacked, which for a listening socket is the maximum of waiting connections
        assert struct.unpack_from("I", info, 28)[0] == backlog


# --- refusals arrive ----------------------------------------------------------------------------


REFUSED = [
    pytest.param(POST + b"Content-Length: %d\r\n\r\n" % UPLOAD, 413, id="length"),
    pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n1400000\r\n", 413, id="chunked"),
    pytest.param(POST + b"Expect: x\r\n\r\n", 417, id="expectation"),
    pytest.param(POST + b"X: ", 431, id="head"),
    pytest.param(b"GET /", 414, id="target"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
    pytest.param(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, id="version"),
]


@pytest.mark.parametrize(("head", "status"), REFUSED)
def test_a_client_that_sends_20_mib_before_it_reads_gets_its_response_and_no_reset(
    serve, application, head, status
):
    server = serve(application, max_body_size=1000)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(head + b"x" * UPLOAD)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 %d " % status), f"got {answer[:100]!r}"
    assert answer.count(b"HTTP/1.1") == 1
    assert not application.calls


# --- Expect -------------------------------------------------------------------------------------

EXPECT = b"Expect: 100-continue\r\n"


@pytest.mark.parametrize("value", [b"100-Continue", b"100-CONTINUE", b"  100-continue\t "])
def test_the_expectation_is_recognised_in_any_case(serve, application, value):
    with connect(serve(application)) as client:
        client.send(POST + b"Expect:" + value + b"\r\nContent-Length: 2\r\n\r\n")
        assert client.read_interim() == 100
        client.send(b"ab")
        response = client.read_response()
        assert (response.status, response.content, response.interim) == (200, b"ab", ())


@pytest.mark.parametrize(
    "value", [b"", b"200-ok", b"100-continued", b"100-continue;x=y", b"100-continue, x"]
)
def test_another_expectation_is_a_417(serve, application, value):
    server = serve(application)
    head = POST + b"Expect: " + value + b"\r\nContent-Length: 2\r\n\r\n"
    assert_refused(server, application, head, 417)
    assert_refused(server, application, head + b"ab", 417)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(POST + EXPECT + b"Content-Length: 5\r\n\r\n", 413, id="too large"),
        pytest.param(
            b"POST / HTTP/1.1\r\n" + EXPECT + b"Content-Length: 1\r\n\r\n", 400, id="host"
        ),
        pytest.param(POST + EXPECT + b"Content-Length: x\r\n\r\n", 400, id="length"),
        pytest.param(POST + EXPECT + EXPECT.replace(b"100", b"1") + b"\r\n", 417, id="two"),
        pytest.param(POST + EXPECT + b"Transfer-Encoding: gzip\r\n\r\n", 501, id="coding"),
    ],
)
def test_a_refused_request_gets_no_100_before_or_after_its_status(
    serve, application, request_, status
):
    server = serve(application, max_body_size=4)
    assert_refused(server, application, request_, status)
    assert_refused(server, application, request_ + b"x" * 100_000, status)


def test_the_server_sends_no_100_after_it_has_refused_the_content(serve, application):
    with connect(serve(application, max_body_size=4)) as client:
        client.send(POST + EXPECT + b"Transfer-Encoding: chunked\r\n\r\n")
        assert client.read_interim() == 100
        client.send(b"5\r\n")
        response = client.read_response()
        assert (response.status, response.interim) == (413, ())
        client.send(b"abcde\r\n0\r\n\r\n" + POST + EXPECT + b"Content-Length: 2\r\n\r\n")
        client.read_nothing_more()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(POST + EXPECT + b"Content-Length: 2\r\n\r\nab", id="the content is there"),
        pytest.param(POST + EXPECT + b"Content-Length: 0\r\n\r\n", id="there is none"),
        pytest.param(POST + EXPECT + b"\r\n", id="there is none, without a length"),
        pytest.param(
            b"POST / HTTP/1.0\r\n" + EXPECT + b"Content-Length: 2\r\n\r\nab", id="HTTP/1.0"
        ),
    ],
)
def test_the_server_sends_no_100_to_a_client_that_does_not_wait_for_it(serve, application, data):
    response = exchange(serve(application), data)[0]
    assert (response.status, response.interim) == (200, ())


def test_a_client_of_http_1_0_gets_no_100_although_it_waits(serve, application):
    with connect(serve(application, timeout_body=0.2)) as client:
        client.send(b"POST / HTTP/1.0\r\n" + EXPECT + b"Content-Length: 2\r\n\r\n")
        response = client.read_response()
        assert (response.status, response.interim) == (408, ())
