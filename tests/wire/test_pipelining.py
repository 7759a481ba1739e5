"""Many requests on one connection, requests that are cut anywhere, and bytes without a meaning.

`WIRE_SEED` in the environment chooses other random splits and bytes; a failure prints the seed.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from picowsgi import core
from support import TIMEOUT, RawClient, connect
from wire.corpus import Case, load_cases
from wire.observer import Observer, Seen, is_observed, seen_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from picowsgi import Server

SEED = os.environ.get("WIRE_SEED", "1")
COUNT = 100
GETS = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % (n, n) for n in range(COUNT))
RANDOM_SECONDS = 5.0

WITH_LENGTH = (
    b"POST /a%20b?c=d HTTP/1.1\r\nHost: a:80\r\nX-Test: \t value \r\n"
    b"Cookie: a=b\r\nContent-Length: 12\r\n\r\nhello\r\nworld"
)
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;a="b"\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: v\r\n\r\n'
)


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server]) -> Server:
    return serve_module(Observer())


def test_a_hundred_pipelined_requests_sent_whole_are_answered_in_order(server: Server) -> None:
    check_pipeline(server, [GETS])


def test_a_hundred_pipelined_requests_sent_byte_by_byte_are_answered_in_order(
    server: Server,
) -> None:
    check_pipeline(server, [GETS[at : at + 1] for at in range(len(GETS))])


@pytest.mark.parametrize("number", range(20))
def test_a_hundred_pipelined_requests_in_random_splits_are_answered_in_order(
    server: Server, number: int
) -> None:
    random = Random(f"{SEED}:pipeline:{number}")
    cuts = sorted(random.sample(range(1, len(GETS)), random.randint(2, 200)))
    with seeded():
        check_pipeline(
            server, [GETS[a:b] for a, b in zip([0, *cuts], [*cuts, len(GETS)], strict=True)]
        )


def check_pipeline(server: Server, pieces: Sequence[bytes]) -> None:
    """Send the pieces, at times with a request on a second connection between two of them."""
    with connect(server) as client, connect(server) as other:
        for number, piece in enumerate(pieces):
            assert client.send(piece), "expected the server to take all requests"
            if number % 16 == 15:
                probe(other)
        for number in range(COUNT):
            environ = seen_in(client.read_response()).environ
            got = (environ["PATH_INFO"], environ["HTTP_X"])
            assert got == (f"/{number}", str(number)), f"expected request {number}, got {got}"
        probe(client)


RECOGNISED = [case for case in load_cases() if "head caches" in case.rule]


@pytest.mark.parametrize("case", RECOGNISED, ids=lambda case: case.id)
def test_the_cases_of_the_head_caches_reach_them(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    kinds = []

    def spied(call: Callable[..., int]) -> Callable[..., int]:
        def spy(*arguments: object) -> int:
            number = call(*arguments)
            if number >= 0:
                kinds.append(number & core.KIND)
            return number

        return spy

    for name in ("respond", "next_request"):
        monkeypatch.setattr(core, name, spied(getattr(core, name)))
    with connect(serve(Observer())) as client:
        client.send(case.data)
        for request in case.requests:
            seen_in(client.read_response(request.method))
    assert len(kinds) == len(case.requests)
    assert {core.SAME, core.CHANGED} & set(kinds), (
        f"expected a head that is known again, got {kinds}"
    )


def test_five_thousand_pipelined_requests_are_answered_while_they_are_sent(
    server: Server,
) -> None:
    with connect(server) as client:
        client.send(GETS * 50)
        for number in range(COUNT * 50):
            path = seen_in(client.read_response()).environ["PATH_INFO"]
            assert path == f"/{number % COUNT}", f"expected request {number % COUNT}, got {path}"


def test_one_connection_serves_a_thousand_requests_one_after_the_other(server: Server) -> None:
    with connect(server) as client:
        for number in range(1000):
            client.send(b"GET /?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            query = seen_in(client.read_response()).environ["QUERY_STRING"]
            assert query == str(number), f"expected request {number}, got {query}"


@pytest.mark.parametrize("data", [WITH_LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("ending", ["close", "half_close", "reset"])
def test_a_request_that_is_cut_anywhere_leaves_no_descriptor_open(
    server: Server, data: bytes, ending: str
) -> None:
    with no_descriptor_more(server):
        for size in range(len(data)):
            with connect(server) as client:
                client.send(data[:size])
                getattr(client, ending)()
                if ending == "half_close":
                    check_only_errors(client, f"the first {size} bytes")


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_client_that_disconnects_before_its_responses_leaves_no_descriptor_open(
    server: Server, ending: str
) -> None:
    with no_descriptor_more(server):
        for size in range(0, len(GETS), 37):
            with connect(server) as client:
                client.send(GETS[:size])
                getattr(client, ending)()


def test_five_seconds_of_random_bytes_get_the_same_answers_whole_and_split(server: Server) -> None:
    random = Random(f"{SEED}:random")
    cases = [case.data for case in load_cases() if not case.options and len(case.data) < 2000]
    # The client must know which responses are to HEAD, so no bytes lead to one.
    cases = [data for data in cases if b"HEAD" not in data]
    deadline = time.monotonic() + RANDOM_SECONDS
    with seeded(), no_descriptor_more(server):
        while time.monotonic() < deadline:
            data = random_bytes(random, cases)
            cut = random.randrange(len(data) + 1)
            whole, split = answers(server, [data]), answers(server, [data[:cut], data[cut:]])
            assert split == whole, f"expected {whole}, got {split} when cut at {cut}: {data!r}"


def answers(server: Server, pieces: Sequence[bytes]) -> list[tuple[int, Seen | None]]:
    """Return all responses to the pieces before a half-close: each status and the requests seen."""
    with connect(server) as client, connect(server) as other:
        for piece in pieces:
            client.send(piece)
            probe(other)
        client.half_close()
        found: list[tuple[int, Seen | None]] = []
        while not client.is_over():
            response = client.read_response()
            seen = seen_in(response) if is_observed(response) else None
            assert seen or response.status >= 400, f"expected an error, got {response}"
            if seen:
                del seen.environ["REMOTE_PORT"]
            found.append((response.status, seen))
        client.read_nothing_more()
        return found


def random_bytes(random: Random, words: Sequence[bytes]) -> bytes:
    """Noise, or a case of the corpus with some of its bytes changed, removed, or doubled."""
    if random.random() < 0.2:
        return random.randbytes(random.randint(1, 3000))
    data = bytearray(random.choice(words))
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[at : at + 1] = random.randbytes(1)
            case 1:
                del data[at : at + random.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + random.randint(1, 20)]
            case _:
                data[at:at] = random.choice([b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\r\n\r\n"])
    return bytes(data)


def check_only_errors(client: RawClient, what: str) -> None:
    """Check that the connection ends without a byte from the application."""
    while not client.is_over():
        response = client.read_response()
        assert not is_observed(response), f"expected no response of the application to {what}"
        assert response.status >= 400, f"expected an error for {what}, got {response}"
    client.read_nothing_more()


def probe(client: RawClient) -> None:
    client.send(b"GET /probe HTTP/1.1\r\nHost: a\r\n\r\n")
    path = seen_in(client.read_response()).environ["PATH_INFO"]
    assert path == "/probe", f"expected the response to /probe, got that to {path}"


@contextmanager
def no_descriptor_more(server: Server) -> Iterator[None]:
    """Check that the server serves, and soon has no more descriptors than it had before.

    A request precedes each check, so the server goes round its loop between two of them.
    """
    with connect(server) as client:
        probe(client)
        before = open_descriptors()
        yield
        deadline = time.monotonic() + TIMEOUT
        while len(now := open_descriptors()) > len(before) and time.monotonic() < deadline:
            probe(client)
        probe(client)
        assert len(now) <= len(before), f"expected {before} to be open, got {now}"


def open_descriptors() -> dict[str, str]:
    """Return the open descriptors of this process, which are also those of the server."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            found[path.name] = str(path.readlink())
        except FileNotFoundError:
            continue
    return found


@contextmanager
def seeded() -> Iterator[None]:
    """Add the seed to the message of a failed check."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"WIRE_SEED={SEED}: {error}") from error
