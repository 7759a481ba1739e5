"""Threads of the application call `write` at the same time, and after the end of the request."""

from __future__ import annotations

import threading
import weakref

import pytest

from picowsgi.errors import ResponseError
from support import connect, exchange, ping, raw, site, wait_until

TEXT = ("Content-Type", "text/plain; charset=utf-8")
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PART = 5000


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("ends_with", ["a list", "a stream", "an error"])
def test_a_thread_that_writes_after_the_end_gets_an_error_and_reaches_no_other_client(
    serve, threads, ends_with
):
    """Each request starts a writer with a letter of its own, and other requests follow at once."""
    ended: list[BaseException] = []
    writers: list[threading.Thread] = []

    def keep_writing(write, letter):
        try:
            while True:
                write(letter * PART)
        except BaseException as error:
            ended.append(error)

    def answer(environ, start_response):
        letter = environ["QUERY_STRING"].encode()
        if letter == b"-":
            start_response("200 OK", [TEXT])
            return [b"plain"]
        write = start_response("200 OK", [TEXT])
        writer = threading.Thread(target=keep_writing, args=(write, letter), daemon=True)
        writers.append(writer)
        writer.start()
        if ends_with == "an error":
            raise RuntimeError("the view has failed")
        return [letter] if ends_with == "a list" else iter([letter, letter])

    server = serve(site(answer), threads=threads)
    for number in range(60):
        letter = bytes([65 + number % 26])
        with connect(server) as client:
            client.send(b"GET /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % letter)
            response = client.read_response()
            if response.status == 200:  # a writer that was faster has begun the response
                assert set(response.content) <= set(letter), "expected no bytes of another response"
            else:
                assert response.status == 500
        for plain in exchange(server, b"GET /?- HTTP/1.1\r\nHost: a\r\n\r\n" * 3, 3):
            assert plain.content == b"plain", "expected no bytes of a thread whose request is over"
    wait_until(lambda: len(ended) == len(writers), "an error for every late writer")
    # Or ClientGoneError, if the client has disconnected during a response that was cut.
    late = [error for error in ended if isinstance(error, ResponseError)]
    assert late, f"expected ResponseError, got {ended[:3]}"


@pytest.mark.parametrize("length", [None, 8 * 20 * PART], ids=["chunked", "with a length"])
def test_threads_that_write_at_once_send_whole_pieces(serve, length):
    def answer(environ, start_response):
        fields = [TEXT] if length is None else [TEXT, ("Content-Length", str(length))]
        write = start_response("200 OK", fields)
        start = threading.Barrier(8)

        def run(letter):
            start.wait()
            for _ in range(20):
                write(letter * PART)

        writers = [threading.Thread(target=run, args=(bytes([65 + n]),)) for n in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        return []

    server = serve(site(answer))
    for _ in range(5):
        content = exchange(server, GET)[0].content
        assert len(content) == 8 * 20 * PART
        pieces = [content[at : at + PART] for at in range(0, len(content), PART)]
        assert all(len(set(piece)) == 1 for piece in pieces), "expected whole pieces"
        assert sorted(set(content)) == list(range(65, 73))
    ping(server)


def test_a_thread_may_write_while_the_view_streams(serve):
    def answer(environ, start_response):
        write = start_response("200 OK", [TEXT])
        writer = threading.Thread(target=lambda: [write(b"w" * PART) for _ in range(50)])
        writer.start()
        for _ in range(50):
            yield b"s" * PART
        writer.join()
        yield b"end"

    content = exchange(serve(site(answer)), GET)[0].content
    assert content.endswith(b"end")
    pieces = [content[at : at + PART] for at in range(0, len(content) - 3, PART)]
    assert all(len(set(piece)) == 1 for piece in pieces), "expected whole pieces"
    assert [pieces.count(letter * PART) for letter in (b"w", b"s")] == [50, 50]


def test_a_list_that_is_returned_after_a_thread_has_begun_to_write_follows_its_content(serve):
    def answer(environ, start_response):
        write = start_response("200 OK", [TEXT])
        writer = threading.Thread(target=write, args=(b"first",))
        writer.start()
        writer.join()
        return [b"second"]

    assert exchange(serve(site(answer)), GET)[0].content == b"firstsecond"


def test_write_beyond_the_content_length_is_cut_in_every_thread(serve):
    def answer(environ, start_response):
        write = start_response("200 OK", [TEXT, ("Content-Length", "10")])
        writers = [threading.Thread(target=write, args=(b"12345",)) for _ in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        return []

    server = serve(site(answer))
    received = raw(server, GET)
    assert received.partition(b"\r\n\r\n")[2] == b"1234512345"
    ping(server)


def test_start_response_is_refused_after_the_end(serve):
    kept = []

    def answer(environ, start_response):
        kept.append(start_response)
        start_response("200 OK", [TEXT])
        return [b"ok"]

    server = serve(site(answer))
    assert exchange(server, GET)[0].content == b"ok"
    with pytest.raises(ResponseError):
        kept[0]("200 OK", [TEXT])
    ping(server)


KEEPERS = {
    "start_response": lambda start_response, _write: start_response,
    "write": lambda _start_response, write: write,
    "the response": lambda start_response, _write: start_response.__self__,
    "a closure": lambda start_response, _write: lambda: start_response,
    "a bound method made again": lambda _start_response, write: write.__self__.start_response,
}


@pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
def test_objects_that_an_application_keeps_of_a_response_are_never_used_for_another_one(
    serve, keep
):
    kept = []

    def answer(environ, start_response):
        number = environ["QUERY_STRING"]
        write = start_response("200 OK", [TEXT, ("X-Number", number)])
        if number.startswith("kept"):
            kept.append(keep(start_response, write))
        return [number.encode()]

    def late():
        for one in kept:
            response = getattr(_called(one), "__self__", one)
            with pytest.raises(ResponseError):
                response.start_response("500 Late", [TEXT])
            with pytest.raises(ResponseError):
                response.write(b"late")

    server = serve(site(answer), threads=1)
    for number in range(6):
        for name in (f"kept{number}", f"{number}", f"again{number}"):
            request = f"GET /?{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            (response,) = exchange(server, request)
            assert (response.status, response.content) == (200, name.encode())
            late()
    responses = [getattr(_called(one), "__self__", _called(one)) for one in kept]
    assert len({id(one) for one in responses}) == 6, (
        "expected a response for each one that was kept"
    )


def _called(one):
    return one() if getattr(one, "__name__", "") == "<lambda>" else one


def test_a_response_does_not_support_weak_references(serve):
    """It would not show that the application still has the object."""
    errors = []

    def answer(environ, start_response):
        try:
            weakref.WeakMethod(start_response)
        except TypeError as error:
            errors.append(error)
        start_response("200 OK", [TEXT])
        return [b"ok"]

    assert exchange(serve(site(answer)), GET)[0].content == b"ok"
    assert errors
