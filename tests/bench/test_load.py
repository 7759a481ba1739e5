"""The benchmark requests, verifies and loads real servers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import string
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import picowsgi
from bench import install, load, measure, verify
from bench import run as runner
from bench.apps import plain
from bench.exchanges import Exchange
from bench.process import BenchError, processors
from bench.results import METRICS, Results
from bench.scenarios import SCENARIOS, Scenario, samples
from bench.servers import SERVERS
from support.bench_sample import HERE, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="the harness needs CPython: os.sched_getaffinity"
)


# ---------------------------------------------------------------- the tables


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_entry_has_all_fields_that_it_needs(name: str) -> None:
    server = SERVERS[name]
    known = {"python", "bin", "cache", "module", "attribute", "port", "threads", "scratch"}
    for text in [*server.command, *server.files.values()]:
        used = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
        assert used <= known, f"{name}: {text}"
    whole = " ".join([*server.command, *server.files.values()])
    assert "{port}" in whole
    assert server.kind == "limit" or ("{module}" in whole and "{attribute}" in whole)
    assert server.why
    assert not server.program or server.program in install.TOOLS


def test_the_list_has_every_server_that_was_asked_for() -> None:
    expected = """picowsgi picowsgi_1 picowsgi_pypy fastpysgi bjoern fastwsgi granian uwsgi
        gunicorn_sync gunicorn_gthread gunicorn_gevent gunicorn_h1c waitress cheroot gevent werkzeug
        wsgiref nginx core"""
    assert set(expected.split()) <= SERVERS.keys()


def test_a_server_for_pypy_is_reported_as_missing_where_there_is_no_pypy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYPY_FOLDER", str(tmp_path))
    assert install.interpreter_of(SERVERS["picowsgi"], HERE) is HERE
    with pytest.raises(BenchError, match="PyPy is missing"):
        install.interpreter_of(SERVERS["picowsgi_pypy"], HERE)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_sends_whole_requests(name: str) -> None:
    scenario = SCENARIOS[name]
    module, _, attribute = scenario.application.partition(":")
    text = (install.APPS / f"{module}.py").read_text()
    assert re.search(rf"^(def )?{attribute}\b", text, re.MULTILINE)
    for exchange in samples(scenario):
        head, end, content = exchange.request.partition(b"\r\n\r\n")
        assert end
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        assert (int(length[1]) if length else 0) == len(content) or b"chunked" in head
    assert (scenario.kind == "rate") == (scenario.rate > 0)


def test_varied_requests_differ_in_every_part_and_have_one_size() -> None:
    exchanges = SCENARIOS["varied"].exchanges()
    assert len({exchange.request.split(b"\r\n")[0] for exchange in exchanges}) == 20_000
    cookies = {re.search(rb"\r\nCookie: (.*)\r\n", each.request)[1] for each in exchanges}  # type: ignore[index]
    assert len(cookies) == 20_000
    names = {tuple(re.findall(rb"\r\n([\w-]+):", each.request)) for each in exchanges[:1000]}
    assert len(names) > 800
    assert len({len(exchange.request) for exchange in exchanges}) == 1
    assert len({len(exchange.content) for exchange in exchanges}) == 1  # type: ignore[arg-type]


# ---------------------------------------------------------------- verification

PLAIN = [name for name, each in SCENARIOS.items() if each.application.startswith("plain:")]


@pytest.mark.parametrize("name", [name for name in PLAIN if SCENARIOS[name].kind == "closed"])
def test_verify_accepts_the_right_answers(name: str) -> None:
    scenario = SCENARIOS[name]
    application = getattr(plain, scenario.application.partition(":")[2])
    with picowsgi.Server(application, port=0) as server:
        sent = samples(scenario)[len(scenario.proofs()) :] * 3
        verified = verify.verify(server.port, scenario.proofs(), sent, scenario.pipeline)
    assert verified.keeps_alive is (name != "close")
    assert verified.framing == ("chunked" if name == "stream" else "length")


@pytest.mark.measured
@pytest.mark.parametrize("name", ["flask", "django"])
def test_the_frameworks_give_the_right_answers_in_a_started_server(name: str) -> None:
    scenario = SCENARIOS[name]
    with measure.running(SERVERS["picowsgi"], HERE, scenario.application, 1) as process:
        verify.verify(process.port, [], samples(scenario), 1)
        assert process.memory().resident > 5 << 20
        assert sum(process.cpu_seconds().values()) > 0.01


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A port where one connection gets these bytes for each request, and is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nright", None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nri\r\n3\r\nght\r\n0\r\n\r\n", None),
        (HEAD + b"\r\nright", None),
        (HEAD + b"Content-Length: 5\r\n\r\nwrong", "expected 5 bytes b'right'"),
        (HEAD + b"Content-Length: 5\r\n\r\nrig", "closed after 3 of 5 bytes"),
        (HEAD + b"Content-Length: 5\r\n\r\nrightmore", "bytes after the response: b'more'"),
        (HEAD + b"Content-Length: +5\r\n\r\nright", "not a Content-Length"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nright\r\n0\r\n\r\n", "longer than its"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\nright\r\n", "not the size of a chunk"),
        (
            HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nright",
            "framed in two ways",
        ),
        (HEAD.replace(b"200", b"500") + b"Content-Length: 5\r\n\r\nright", "status 500"),
        (b"HTTP/2 200\r\n\r\nright", "not a status line"),
        (b"", "closed in the middle of a head"),
    ],
)
def test_verify_reports_a_wrong_answer(answer: bytes, complaint: str | None) -> None:
    exchange = Exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"right")
    with answering(answer) as port:
        if complaint is None:
            verify.verify(port, [], [exchange], 1)
        else:
            with pytest.raises(verify.WrongAnswerError, match=re.escape(complaint)):
                verify.verify(port, [], [exchange], 1)


def test_verify_reports_a_missing_field() -> None:
    exchange = Exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"right", (("X-Field", "1"),))
    with (
        answering(HEAD + b"Content-Length: 5\r\n\r\nright") as port,
        pytest.raises(verify.WrongAnswerError, match="X-Field: 1"),
    ):
        verify.verify(port, [], [exchange], 1)


# ---------------------------------------------------------------- loads

WRK = """Running 1s test @ http://127.0.0.1:9000
  1 threads and 64 connections
  81000 requests in 1.10s, 12.34MB read
RESULT {{"requests": {requests}, "bytes": 10854000, "microseconds": 1100000, \
"errors": {{"connect": 0, "read": {read}, "write": 0, "status": {status}, "timeout": 0}}, \
"latency": {{"50": 400, "90": 500, "99": 900, "99.9": 1000, "100": 1200}}}}
"""


def test_the_output_of_wrk_is_read() -> None:
    seen = load.parse_wrk(WRK.format(requests=81000, read=0, status=0))
    assert (seen.requests, seen.seconds, seen.bytes) == (81000, 1.1, 10854000)
    assert seen.latency["99"] == 900


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (WRK.format(requests=81000, read=2, status=0), "2 read"),
        (WRK.format(requests=81000, read=0, status=7), "7 status"),
        (WRK.format(requests=0, read=0, status=0), "no request was answered"),
        ("unable to connect to 127.0.0.1:9000 Connection refused\n", "Connection refused"),
    ],
)
def test_an_error_in_the_output_of_wrk_voids_the_run(text: str, complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint):
        load.parse_wrk(text)


@pytest.mark.parametrize(("size", "fits"), [(134, True), (120, False), (150, False)])
def test_answers_of_another_size_than_the_right_ones_void_the_run(size: int, fits: bool) -> None:
    seen = load.Load(10_000, 1.0, {}, bytes=134 * 10_000)
    verified = verify.Verified(size, "length", keeps_alive=True)
    if fits:
        measure.check_bytes(seen, verified, SCENARIOS["hello"])
    else:
        with pytest.raises(BenchError, match="134 bytes for each request"):
            measure.check_bytes(seen, verified, SCENARIOS["hello"])


def test_the_counts_of_strace_are_read() -> None:
    text = (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 60.00    0.300000           3    100000           writev\n"
        " 40.00    0.200000           2    100100       100 recvfrom\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.500000           2    200100       100 total\n"
    )
    assert measure.parse_strace(text) == {"writev": 100000, "recvfrom": 100100}


@contextmanager
def open_loop(application: Callable[..., Any], rate: int, seconds: float) -> Iterator[load.Load]:
    program = install.build_program("open_loop", say)
    scenario = Scenario(
        "test", "", "", SCENARIOS["hello"].exchanges, connections=8, kind="rate", rate=rate
    )
    with picowsgi.Server(application, port=0, threads=1) as server:
        yield load.fixed_rate(program, scenario, len(plain.HELLO), server.port, seconds, None)


@pytest.mark.measured
@pytest.mark.unsanitized  # also the next three: its compiler would run with the sanitizers' library
def test_an_open_loop_sends_each_request_when_it_is_due() -> None:
    with open_loop(plain.hello, 500, 0.5) as seen:
        assert seen.requests == 250
        assert 0.4 < seen.seconds < 2
        assert 0 < seen.latency["50"] <= seen.latency["99"] <= seen.latency["100"]


@pytest.mark.unsanitized
def test_a_stall_is_charged_to_all_requests_that_were_due_during_it() -> None:
    """One request of 500 takes 0.4 s: a closed loop would see one to eight slow ones."""
    asked = iter(range(1_000_000))

    def stalls_once(environ: Any, start_response: Any) -> Any:
        if next(asked) == 50:
            time.sleep(0.4)
        return plain.hello(environ, start_response)

    with open_loop(stalls_once, 500, 1) as seen:
        assert seen.requests == 500
        # 200 were due in the stall, and waited for 0.2 s on average.
        assert seen.latency["90"] > 100_000
        assert seen.latency["100"] > 390_000


@pytest.mark.unsanitized
def test_a_wrong_answer_in_an_open_loop_voids_the_run() -> None:
    def wrong(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"something else"[:13]]

    with pytest.raises(BenchError, match="wrong responses"), open_loop(wrong, 500, 0.2):
        pass


def test_a_request_that_an_open_loop_loses_voids_the_run() -> None:
    text = (
        'RESULT {"requests": 900, "wrong": 0, "lost": 100, "unsent": 0, "reconnected": 0, '
        '"seconds": 3.0, "latency": {"50": 1, "90": 1, "99": 1, "99.9": 1, "100": 1}}'
    )
    with pytest.raises(BenchError, match=r"cannot keep up with 500 .*: 100 of 1000"):
        load.parse_open_loop(text, 500)


def test_the_idle_scenario_counts_the_connections_that_stay_open() -> None:
    request = SCENARIOS["idle"].exchanges()[0].request
    with (
        picowsgi.Server(plain.hello, port=0) as server,
        load.idle_connections(server.port, request, 150, plain.HELLO),
    ):
        pass
    with (
        picowsgi.Server(plain.hello, port=0, timeout_keep_alive=0.05) as server,
        pytest.raises(BenchError, match="idle connection"),
        load.idle_connections(server.port, request, 20, plain.HELLO),
    ):
        time.sleep(0.5)  # the test waits for the server's timeout


@pytest.mark.timeout(180)  # it compiles the core, while other tests run
@pytest.mark.unsanitized
def test_the_health_check_does_not_run_python() -> None:
    install.build_program("core_alone", say, with_core=True)
    scenario = SCENARIOS["pipelined"]
    with measure.running(SERVERS["core"], HERE, scenario.application, 1) as process:
        verify.verify(process.port, [], samples(scenario), scenario.pipeline)


def test_a_server_that_does_not_start_is_reported_with_its_last_words() -> None:
    with (
        pytest.raises(BenchError, match="has ended with status"),
        measure.running(SERVERS["wsgiref"], HERE, "no_such_module:app", 1),
    ):
        pass


@pytest.mark.measured
@pytest.mark.unsanitized
@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk: apt-get install wrk")
def test_a_run_measures_each_server_and_keeps_the_measurements(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    settings = measure.Settings(duration=1, warmup=0, rounds=1)
    servers = [SERVERS["picowsgi"], SERVERS["granian"]]
    missing = {"granian": "it is not wanted here"}
    runner.run(HERE, servers, [SCENARIOS["hello"]], settings, output, missing)
    found = Results.read(output)
    assert (found.servers, found.data["missing"]) == (["picowsgi"], missing)
    (run,) = found.data["runs"]
    assert run["requests"] > 100
    assert run["cpu"] * run["requests"] / 1e6 <= run["seconds"] * 1.1
    assert METRICS.keys() - run.keys() == {"memory_idle", "share"}
    assert found.data["settings"]["load_processor"] == processors()[1]
    assert found.data["finished"] is not None
    if shutil.which("strace"):
        assert 0.9 < run["system_calls"]["recvfrom"] < 2
