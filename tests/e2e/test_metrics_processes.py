"""--metrics of several processes: one page, whose counters survive the end of any of them."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from support import RawClient
from support.held import HOLDING_APP, Held
from support.marks import INTERRUPTS
from support.metrics import fetch, free_port, metrics_port, page_with, read_page
from support.processes import (
    APP,
    PROCESS_TIMEOUT,
    ask,
    children,
    eventually,
    is_refused,
    lives,
    needs_gil,
    write_app,
)
from support.stops import reload

ANY = ("--metrics", "127.0.0.1:0")
TWO = ("--workers", "2")
MODES = pytest.mark.parametrize(
    "options",
    [(), TWO, (*TWO, "--preload")],
    ids=["one process", "two workers", "preload"],
)


@pytest.fixture
def counted(picowsgi, tmp_path):
    """Start the application as a command: `command, port = counted("--workers", "2")`."""

    def start(*options, app=APP, **more):
        write_app(tmp_path, app)
        command = picowsgi(*ANY, *options, "app:app", directory=tmp_path, **more)
        command.wait_for_log("metrics on ")
        return command, metrics_port(command.log)

    return start


def restarts(port):
    return read_page(port).labelled("picowsgi_worker_restarts_total", "reason")


def pids(port, count=20):
    """Return the processes that answer requests."""
    return {int(ask(port, "/pid")) for _ in range(count)}


@MODES
def test_requests_of_all_processes_are_on_one_page(counted, options):
    command, port = counted(*options)
    workers = 2 if options else 1
    page_with(port, workers=workers, threads=workers * 16)
    for number in range(30):
        assert ask(command.port, f"/{number}") == "1"
    page = page_with(
        port,
        requests={"GET 2xx": 30},
        request_duration_seconds_count=30,
        queue_seconds_count=30,
        connections_accepted_total=30,
        connections=0,
        threads_busy=0,
    )
    assert page.value("process_resident_memory_bytes") > workers << 20
    assert restarts(port) == {}
    assert command.stop() == 0
    assert is_refused(port)


@pytest.mark.parametrize("options", [TWO, (*TWO, "--preload")], ids=["two workers", "preload"])
def test_the_counters_of_a_killed_worker_stay(counted, options):
    command, port = counted(*options)
    for _ in range(10):
        ask(command.port)
    before = page_with(port, requests={"GET 2xx": 10}, workers=2)
    for count in range(1, 4):
        victim = children(command.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not lives(victim), "its end")  # noqa: B023
        page_with(port, workers=2, worker_restarts_total=count)
        ask(command.port)
        after = page_with(port, requests={"GET 2xx": 10 + count})
        earlier = before.counters()
        assert all(value >= earlier[key] for key, value in after.counters().items())
        before = after
    assert restarts(port) == {"signal": 3}
    page_with(port, threads=32)  # a new worker reports them shortly after its start


def test_the_cpu_time_of_a_killed_worker_stays(counted):
    burn = "until = time.process_time() + 0.7\n        while time.process_time() < until: pass"
    command, port = counted(*TWO, app=APP.replace("hold_the_interpreter()", burn, 1))
    ask(command.port, "/spin")
    before = read_page(port).value("process_cpu_seconds_total")
    assert before > 0.6
    for victim in children(command.process.pid):
        os.kill(victim, signal.SIGKILL)
    page = page_with(port, workers=2, worker_restarts_total=2)
    assert before <= page.value("process_cpu_seconds_total") < before + 60


def test_a_worker_that_ends_itself_is_an_exit(counted):
    command, port = counted(*TWO, app=APP.replace("hold_the_interpreter()", "os._exit(3)", 1))
    with suppress(Exception):
        ask(command.port, "/spin")
    page_with(port, workers=2, worker_restarts_total=1)
    assert restarts(port) == {"exit": 1}


def test_a_worker_that_is_replaced_after_its_requests(counted):
    command, port = counted(*TWO, "--max-requests", "5")
    for _ in range(12):
        ask(command.port)
    eventually(lambda: restarts(port).get("requests", 0) >= 2, "two replacements")
    assert restarts(port).keys() == {"requests"}
    page_with(port, requests={"GET 2xx": 12}, workers=2)


def test_a_worker_that_is_too_large(counted):
    command, port = counted("--max-worker-rss", "120M")
    ask(command.port, "/grow")
    eventually(lambda: restarts(port) == {"memory": 1}, "a replacement")
    page_with(port, requests={"GET 2xx": 1}, workers=1)


@needs_gil
def test_a_worker_that_is_silent(counted):
    command, port = counted(*TWO, "--timeout-worker", "2")
    with RawClient(command.port) as client:
        client.send(b"GET /spin HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: restarts(port) == {"timeout": 1}, "the end of the worker")
        page_with(port, workers=2)


@needs_gil
def test_the_page_is_served_while_a_request_holds_the_interpreter(counted):
    command, port = counted("--threads", "2")
    with RawClient(command.port) as client:
        client.send(b"GET /spin HTTP/1.1\r\nHost: a\r\n\r\n")
        page_with(port, threads_busy=1)
        time.sleep(0.3)
        page_with(port, threads_busy=1, workers=1, threads=2)


#: A request that continues after an exception.
STUBBORN = (
    HOLDING_APP.replace("time.sleep(0.005)", "wait()")
    + """
def wait():
    try:
        time.sleep(0.005)
    except BaseException:
        pass
"""
)


@INTERRUPTS
def test_a_worker_whose_requests_are_stuck(counted):
    command, port = counted(*TWO, "--timeout-request", "0.3", app=STUBBORN)
    with RawClient(command.port) as client:
        client.send(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: restarts(port) == {"timeout": 1}, "a replacement")


@MODES
def test_a_reload_keeps_the_counters(counted, options):
    command, port = counted(*options)
    workers = 2 if options else 1
    total = 0

    def count_pids(count=20):
        nonlocal total
        total += count
        return pids(command.port, count)

    page = read_page(port)
    start = page.value("process_start_time_seconds")
    for count in range(1, 3):
        old = count_pids()
        earlier = page_with(port, requests={"GET 2xx": total}).counters()
        reload(command)
        eventually(lambda: not count_pids(1) & old, "new processes")  # noqa: B023
        command.wait_for_log("info: reloaded", count)
        page = page_with(port, workers=workers, threads=workers * 16, requests={"GET 2xx": total})
        assert all(value >= earlier[key] for key, value in page.counters().items())
    assert page.value("process_start_time_seconds") == pytest.approx(start, abs=0.5)
    assert restarts(port).keys() == {"reload"}
    assert command.stop() == 0
    assert is_refused(port)


@MODES
def test_an_upgrade_keeps_the_counters_and_the_newest_process_serves_the_page(counted, options):
    command, port = counted(*options)
    workers = 2 if options else 1
    for _ in range(5):
        ask(command.port)
    page = page_with(port, requests={"GET 2xx": 5}, workers=workers)
    start = page.value("process_start_time_seconds")
    command.process.send_signal(signal.SIGUSR2)
    command.wait_for_log("serves too")
    eventually(
        lambda: read_page(port).value("process_start_time_seconds") > start, "the newer server"
    )
    page_with(port, requests={"GET 2xx": 5}, workers=2 * workers)
    successor = max(children(command.process.pid))
    assert command.stop() == 0
    page = page_with(port, workers=workers)
    ask(command.port)
    page_with(port, requests={"GET 2xx": 6}, threads=workers * 16)
    os.kill(successor, signal.SIGTERM)
    eventually(lambda: is_refused(port), "the end of the successor")


def test_a_successor_that_fails_leaves_the_page_to_the_server(counted, tmp_path):
    command, port = counted()
    ask(command.port)
    write_app(tmp_path, "raise RuntimeError('broken')")
    command.process.send_signal(signal.SIGUSR2)
    command.wait_for_log("nothing has changed")
    for _ in range(5):
        page_with(port, requests={"GET 2xx": 1}, workers=1)


def test_the_page_is_served_while_a_worker_loads_the_application(picowsgi, tmp_path):
    gate = tmp_path / "gate"
    write_app(
        tmp_path,
        f"import time\nfrom pathlib import Path\nwhile not Path({str(gate)!r}).exists():"
        f" time.sleep(0.01)\n{APP}",
    )
    port = free_port()
    command = picowsgi(
        *("--metrics", f"127.0.0.1:{port}", *TWO, "app:app"), directory=tmp_path, listens=False
    )
    eventually(lambda: not is_refused(port), "the page")
    assert read_page(port).value("picowsgi_workers") == 0
    gate.touch()
    command.wait_until_it_listens()
    page_with(port, workers=2)


def test_busy_threads_and_waiting_requests_of_all_workers(counted, tmp_path):
    command, port = counted(*TWO, "--threads", "2", app=HOLDING_APP)
    with Held(tmp_path, command.port, 10, running=4) as held:
        page = page_with(port, threads=4, threads_busy=4, queue_length=6, connections=10)
        assert page.value("picowsgi_connections", state="active") == 10
        held.check_that_all_are_answered()
    page_with(port, threads_busy=0, queue_length=0, requests={"GET 2xx": 10})


def test_the_page_is_served_until_the_last_request_is_answered(counted, tmp_path):
    command, port = counted(*TWO, app=HOLDING_APP)
    with Held(tmp_path, command.port, 2) as held:
        command.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_refused(command.port), "the end of the listening socket")
        page_with(port, threads_busy=2)
        held.check_that_all_are_answered()
    assert command.wait() == 0


def test_a_change_of_the_number_of_workers_is_no_restart(counted):
    command, port = counted(*TWO)
    command.process.send_signal(signal.SIGTTIN)
    page_with(port, workers=3, threads=48)
    command.process.send_signal(signal.SIGTTOU)
    page_with(port, workers=2, threads=32)
    assert restarts(port) == {}


def test_a_process_that_the_application_forks_has_no_socket_of_the_page(counted):
    app = APP.replace(
        "hold_the_interpreter()",
        "answer = str(child())",
        1,
    ) + (
        "\ndef child():\n    pid = os.fork()\n    if pid == 0:\n        time.sleep(60)\n"
        "        os._exit(0)\n    return pid\n"
    )
    command, port = counted(app=app)
    child = int(ask(command.port, "/spin"))
    try:
        ask(command.port)
        page_with(port, requests={"GET 2xx": 2}, workers=1)
        command.process.kill()
        command.process.wait()
        assert is_refused(port), "expected the forked child to have closed the socket"
    finally:
        os.kill(child, signal.SIGKILL)


def page_descriptors(worker, port):
    """Return what a worker has open of the page of metrics: sockets and shared memory."""
    table = Path(f"/proc/{worker}/net/tcp").read_text().splitlines()[1:]
    lines = [line.split() for line in table]
    ours = {f"socket:[{line[9]}]" for line in lines if f":{port:04X}" in line[1]}
    assert ours, "expected the sockets of the page in the table"
    links = set()
    for file in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(OSError):  # it is closed in this moment
            links.add(str(file.readlink()))
    return (links & ours) | {link for link in links if "picowsgi-metrics" in link}


@pytest.mark.parametrize("options", [(), TWO], ids=["one process", "two workers"])
def test_a_worker_has_no_descriptor_of_the_page(counted, options):
    command, port = counted(*options)
    with socket.create_connection(("127.0.0.1", port)) as scraping:  # during a fork
        scraping.sendall(b"GET /met")
        for victim in children(command.process.pid):
            os.kill(victim, signal.SIGKILL)
        page_with(port, workers=2 if options else 1)
        # A process closes what it has inherited after the fork, not in the same moment.
        eventually(
            lambda: not any(page_descriptors(one, port) for one in children(command.process.pid)),
            "no worker to have a descriptor of the page",
        )


def test_dropped_lines_of_the_access_log_are_counted(counted, tmp_path):
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        command, port = counted(
            *("--access-log", "--access-log-file", str(fifo)),
            *("--access-log-format", "%(U)s " + "x" * 4000),
        )
        with RawClient(command.port) as client:
            for _ in range(60):
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
                for _ in range(20):
                    client.read_response()
        eventually(
            lambda: read_page(port).value("picowsgi_dropped_log_lines_total") > 50, "lost lines"
        )
        page = page_with(port, requests={"GET 2xx": 1200})
        assert page.value("picowsgi_dropped_log_lines_total") < 1200
    finally:
        os.close(reader)


# The front ends


def test_the_option_is_read_from_the_environment_and_the_file(picowsgi, tmp_path):
    write_app(tmp_path)
    port = free_port()
    (tmp_path / "pyproject.toml").write_text(f'[tool.picowsgi]\nmetrics = "127.0.0.1:{port}"\n')
    command = picowsgi("app:app", directory=tmp_path)
    command.wait_for_log(f"metrics on http://127.0.0.1:{port}/metrics")
    command.stop()
    other = free_port()
    command = picowsgi(
        "app:app", directory=tmp_path, environ={"PICOWSGI_METRICS": f"127.0.0.1:{other}"}
    )
    page_with(other, workers=1)
    assert is_refused(port)


def test_serve_has_the_page_too(command, tmp_path):
    write_app(tmp_path)
    started = command(
        "-c",
        "import logging, picowsgi\nfrom app import app\nlogging.basicConfig(level='INFO')\n"
        "picowsgi.serve(app, port=0, workers=2, metrics='127.0.0.1:0')",
        directory=tmp_path,
        environ={"PYTHONPATH": str(tmp_path)},
    )
    started.wait_for_log("metrics on ")
    port = metrics_port(started.log)
    ask(started.port)
    page_with(port, requests={"GET 2xx": 1}, workers=2)
    os.kill(children(started.process.pid)[0], signal.SIGKILL)
    page_with(port, requests={"GET 2xx": 1}, workers=2, worker_restarts_total=1)


@pytest.mark.parametrize(
    ("address", "status", "text"),
    [
        ("9100", 2, "--metrics: expected HOST:PORT, [V6]:PORT or unix:PATH"),
        ("fd://3", 2, "--metrics: expected HOST:PORT, [V6]:PORT or unix:PATH, got 'fd://3'"),
        ("203.0.113.1:9100", 1, "--metrics: cannot listen on 203.0.113.1:9100: this machine"),
        ("unix:/nonexistent/s", 1, "--metrics: cannot listen on unix:/nonexistent/s: its direct"),
    ],
)
def test_a_wrong_address_is_one_line_at_the_start(picowsgi, tmp_path, address, status, text):
    write_app(tmp_path)
    command = picowsgi("--metrics", address, "app:app", directory=tmp_path, listens=False)
    assert command.process.wait(PROCESS_TIMEOUT) == status
    assert text in command.log
    assert command.log.count("\n") == 1, command.log


def test_an_address_in_use_is_one_line_at_the_start(picowsgi, tmp_path):
    write_app(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = picowsgi("--metrics", address, "app:app", directory=tmp_path, listens=False)
        assert command.process.wait(PROCESS_TIMEOUT) == 1
    assert f"error: --metrics: cannot listen on {address}: the port is in use" in command.log
    assert command.log.count("\n") == 1, command.log


def test_metrics_on_a_unix_socket_survive_a_reload_and_end_with_the_server(picowsgi, tmp_path):
    write_app(tmp_path)
    command = picowsgi("--metrics", "unix:m", "app:app", directory=tmp_path)
    command.wait_for_log("metrics on unix:")

    def page():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PROCESS_TIMEOUT)
            client.connect(str(tmp_path / "m"))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            data = b""
            while part := client.recv(65536):
                data += part
        return data.decode()

    ask(command.port)
    eventually(lambda: 'requests_total{method="GET",status="2xx"} 1\n' in page(), "the request")
    reload(command)
    eventually(lambda: 'restarts_total{reason="reload"} 1\n' in page(), "the reload")
    assert 'requests_total{method="GET",status="2xx"} 1\n' in page()
    assert command.stop() == 0
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("way", ["gunicorn", "simple_server"])
def test_metrics_are_refused_where_they_have_no_meaning(command, tmp_path, way):
    write_app(tmp_path)
    code = "from picowsgi.simple_server import make_server; make_server('', 0, None)"
    arguments = ("-c", code)
    if way == "gunicorn":
        pytest.importorskip("gunicorn")
        worker = ("--worker-class", "picowsgi.contrib.gunicorn.Worker")
        arguments = ("-m", "gunicorn", *worker, "--bind", "127.0.0.1:0", "app:app")
    started = command(
        *arguments,
        directory=tmp_path,
        environ={"PICOWSGI_METRICS": "127.0.0.1:0"},
        listens=False,
    )
    assert started.process.wait(PROCESS_TIMEOUT) != 0
    assert "PICOWSGI_METRICS in the environment: " in started.log


def test_the_page_of_a_command_says_where_it_is(counted):
    _, port = counted()
    assert fetch(port, "/nothing")[0] == 404
