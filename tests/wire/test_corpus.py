"""Sends every case of the corpus: whole, byte by byte, in random splits, followed by more bytes.

`WIRE_SEED` in the environment chooses other random splits; a failure prints the seed and the cuts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import pytest

from support import RawClient, Response, connect
from support.proxy_header import LOCAL
from wire.corpus import Case, Request, load_cases
from wire.observer import Observer, Seen, is_observed, seen_in

if TYPE_CHECKING:
    from picowsgi import Server

CASES = list(load_cases())
SEED = os.environ.get("WIRE_SEED", "1")
SPLITS = 4
AFTER = Request("GET", "/after")
AFTER_DATA = b"GET /after HTTP/1.1\r\nHost: after\r\n\r\n"
PROBE_DATA = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"
LONG = 4096

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_closing_case = pytest.mark.parametrize(
    "case", [case for case in CASES if case.closed], ids=lambda case: case.id
)


@dataclass(frozen=True)
class Target:
    server: Server
    observer: Observer


TargetOf = Callable[[Case], Target]


@pytest.fixture(scope="module")
def target_of(serve_module: Callable[..., Server]) -> TargetOf:
    """The server for a case: one for each set of options, started when it is first needed."""
    targets: dict[tuple[tuple[str, str], ...], Target] = {}

    def find(case: Case) -> Target:
        key = tuple(sorted(case.options.items()))
        if key not in targets:
            observer = Observer()
            options = {name: int(v) if v.isdigit() else v for name, v in case.options.items()}
            targets[key] = Target(serve_module(observer, **options), observer)
        return targets[key]

    return find


@every_case
def test_a_case_gets_its_responses_when_sent_whole(case: Case, target_of: TargetOf) -> None:
    run(case, target_of(case), [case.data], "whole")


@every_case
def test_a_case_gets_its_responses_when_sent_one_byte_at_a_time(
    case: Case, target_of: TargetOf
) -> None:
    size = 1 if len(case.data) <= LONG else len(case.data) // 200
    pieces = [case.data[at : at + size] for at in range(0, len(case.data), size)]
    run(case, target_of(case), pieces, f"in pieces of {size}")


@every_case
def test_a_case_gets_its_responses_when_split_at_random(case: Case, target_of: TargetOf) -> None:
    for number in range(SPLITS):
        random = Random(f"{SEED}:{case.id}:{number}")
        cuts = sorted(random.sample(range(1, len(case.data)), random.randint(1, 2)))
        pieces = [case.data[a:b] for a, b in zip([0, *cuts], [*cuts, len(case.data)], strict=True)]
        run(case, target_of(case), pieces, f"cut at {cuts} (WIRE_SEED={SEED})")


@every_case
def test_a_case_followed_by_another_request_gets_its_responses(
    case: Case, target_of: TargetOf
) -> None:
    if case.half_close:
        run(case, target_of(case), [case.data], "whole")
    else:
        run(case, target_of(case), [case.data + AFTER_DATA], "with GET /after", followed=True)


@every_closing_case
def test_a_case_that_closes_ignores_the_bytes_after_it(case: Case, target_of: TargetOf) -> None:
    if case.half_close:
        return
    garbage = Random(f"{SEED}:{case.id}").randbytes(300)
    how = f"with garbage (WIRE_SEED={SEED})"
    run(case, target_of(case), [case.data + garbage], how)


def run(
    case: Case, target: Target, pieces: Sequence[bytes], how: str, *, followed: bool = False
) -> None:
    """Send `pieces` on a new connection and check all responses.

    `followed`: the request AFTER is already in the pieces. Otherwise it is sent after the
    responses, if the connection is expected to stay open.
    """
    with explained(case, how), connect(target.server) as client:
        target.observer.calls.pop(str(client.local_port), None)
        send_apart(target.server, client, pieces, LOCAL if has_proxy_header(case) else b"")
        if case.half_close:
            client.half_close()
        served = check_answers(case, client)
        if served and not case.closed and not case.half_close:
            if not followed:
                client.send(AFTER_DATA)
            check_request(after(case), seen_in(client.read_response()))
            served += 1
        calls = target.observer.calls[str(client.local_port)]
        assert calls == served, f"expected {served} calls of the application, got {calls}"


def after(case: Case) -> Request:
    """Return the request AFTER. A PROXY header has named the client of the whole connection."""
    if not has_proxy_header(case):
        return AFTER
    address = case.requests[-1].environ["REMOTE_ADDR"]
    return Request(AFTER.method, AFTER.target, {"REMOTE_ADDR": address})


def has_proxy_header(case: Case) -> bool:
    return "proxy_protocol" in case.options


def send_apart(
    server: Server, client: RawClient, pieces: Sequence[bytes], probe_header: bytes
) -> None:
    """Send the pieces so that the server reads each before the next is sent.

    A request on a second connection is answered between two pieces: the server has been round its
    loop.
    """
    if len(pieces) == 1:
        client.send(pieces[0])
        return
    with connect(server) as probe:
        probe.send(probe_header)
        for piece in pieces:
            if not client.send(piece):
                return
            probe.send(PROBE_DATA)
            seen_in(probe.read_response())


def check_answers(case: Case, client: RawClient) -> int:
    """Check the responses to the bytes of the case; return the number of served requests."""
    for number, request in enumerate(case.requests):
        response = client.read_response(request.method)
        last = number == len(case.requests) - 1
        if last and case.alternatives and not is_observed(response):
            check_error(response, case.alternatives, case)
            client.read_nothing_more()
            return number
        seen = seen_in(response)
        check_request(request, seen)
        check_head(response, seen, case, ends=last and case.closed and not case.statuses)
    if case.statuses and not (client.is_over() and "none" in case.statuses):
        check_error(client.read_response(), case.statuses, case)
    if case.closed or case.half_close:
        client.read_nothing_more()
    return len(case.requests)


def check_request(expected: Request, seen: Seen) -> None:
    """Check the statements of the case, and the rules for every request."""
    environ = seen.environ
    wanted: dict[str, str | None] = {
        "REQUEST_METHOD": expected.method,
        "REQUEST_URI": expected.target,
        "RAW_URI": expected.target,
        "SCRIPT_NAME": "",
        "HTTP_TRANSFER_ENCODING": None,
        "HTTP_CONTENT_LENGTH": None,
        "HTTP_CONTENT_TYPE": None,
        "REMOTE_ADDR": "127.0.0.1",
        **expected.environ,
    }
    for key, value in wanted.items():
        got = environ.get(key)
        if value is None and key in ("CONTENT_LENGTH", "CONTENT_TYPE"):
            got = got or None  # PEP 3333: either may be empty or missing
        assert got == value, f"expected {key} to be {value!r}, got {got!r}"
    for key, text in environ.items():
        assert text.isascii() or max(text) <= "\xff", f"expected latin-1 in {key}, got {text!r}"
    assert environ["SERVER_PROTOCOL"] in ("HTTP/1.0", "HTTP/1.1"), environ["SERVER_PROTOCOL"]
    assert environ["SERVER_NAME"], "expected a SERVER_NAME"
    assert environ["SERVER_PORT"].isdigit(), f"expected a port, got {environ['SERVER_PORT']!r}"
    assert seen.input_terminated, "expected wsgi.input_terminated to be True"
    if "unread" not in expected.target:
        assert seen.content == expected.content, (
            f"expected the content {expected.content[:200]!r}, got {seen.content[:200]!r}"
        )
        length = int(environ.get("CONTENT_LENGTH") or "0")
        assert length == len(expected.content), (
            f"expected CONTENT_LENGTH {len(expected.content)}, got {length}"
        )


def check_head(response: Response, seen: Seen, case: Case, *, ends: bool) -> None:
    """Check that a response reports the end of the connection, and has the server's fields."""
    check_common(response, case)
    connection = response.tokens("Connection")
    if ends:
        assert "close" in connection or seen.environ["SERVER_PROTOCOL"] == "HTTP/1.0", (
            f"expected Connection: close in the last response, got {response.fields}"
        )
    else:
        assert "close" not in connection, f"expected no Connection: close, got {response.fields}"
    if not ends and seen.environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        assert "keep-alive" in connection, (
            f"expected Connection: keep-alive for HTTP/1.0, got {response.fields}"
        )


def check_error(response: Response, statuses: Sequence[str], case: Case) -> None:
    """Check that the server's own response has one of `statuses`, is complete, and closes."""
    got = f"{response.status} {response.reason}: {response.content[:200]!r}"
    assert not is_observed(response), (
        f"expected {statuses}, but the application got the request: {got}"
    )
    assert str(response.status) in statuses, f"expected {statuses}, got {got}"
    assert response.complete, f"expected a complete error response, got {got}"
    assert response.tokens("Connection") == ["close"], (
        f"expected Connection: close, got {response.fields}"
    )
    assert response.value("Content-Length") == str(len(response.content)), (
        f"expected a Content-Length of {len(response.content)}, got {response.fields}"
    )
    check_common(response, case)


def check_common(response: Response, case: Case) -> None:
    assert response.value("Date"), f"expected a Date, got {response.fields}"
    allowed = [(), (100,)] if case.interim else [()]
    assert response.interim in allowed, f"expected one of {allowed} before it, got {response}"


@contextmanager
def explained(case: Case, how: str) -> Iterator[None]:
    """Add the rule, the bytes and the way of sending them to the message of a failed check."""
    try:
        yield
    except AssertionError as error:
        data = case.data if len(case.data) < 1000 else case.data[:1000] + b"..."
        message = f"{case.id}: {case.rule}\nsent {how}: {data!r}\n{error}"
        raise pytest.fail.Exception(message, pytrace=False) from None
