"""--metrics in one process: what is counted, exactly, and who gets the page."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import ExitStack

import pytest

import picowsgi
from picowsgi.errors import BindError, ConfigError
from support import RawClient, connect, exchange, raw, wait_until
from support.metrics import Page, fetch, page_with, port_of, read_page

ANY = "127.0.0.1:0"
BOUNDS = [
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    "+Inf",
]
REASONS = {
    "request_line": (b"GET /\r\n\r\n", 400),
    "method": (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "version": (b"GET / HTTP/1.x\r\nHost: a\r\n\r\n", 400),
    "line_end": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "field": (b"GET / HTTP/1.1\r\nHost: a\r\nx y: z\r\n\r\n", 400),
    "length": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
    "chunk": (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    "head_timeout": (b"GET / HTTP/1.1\r\n", 408),
    "body_timeout": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx", 408),
    "body_size": (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n", 413),
    "target_size": (b"GET /" + b"x" * 17000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "head_size": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40000 + b"\r\n\r\n", 431),
    "field_count": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
    "other_version": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
}


def application(environ, start_response):
    """Respond with the status in the path, and with as many bytes as the query says."""
    status = environ["PATH_INFO"].strip("/") or "200"
    size = int(environ["QUERY_STRING"] or 0)
    environ["wsgi.input"].read()
    start_response(f"{status} Status", [("Content-Type", "text/plain")])
    return [b"x" * size]


@pytest.fixture
def counted(serve):
    """Start a server with metrics: `server, port = counted(application)`."""

    def start(app=application, **options):
        server = serve(app, metrics=ANY, **options)
        return server, port_of(server.metrics_url)

    return start


def ask_for(server, method="GET", path="/", body=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    return exchange(server, head.encode() + body, methods=[method])[0]


# What is counted


def test_requests_are_counted_by_method_and_class_of_the_status(counted):
    server, port = counted()
    sent = {
        ("GET", "200"): 5,
        ("GET", "204"): 1,
        ("GET", "404"): 2,
        ("HEAD", "301"): 2,
        ("POST", "201"): 3,
        ("PUT", "200"): 1,
        ("PATCH", "409"): 1,
        ("DELETE", "500"): 1,
        ("OPTIONS", "200"): 1,
    }
    for (method, status), count in sent.items():
        for _ in range(count):
            assert ask_for(server, method, f"/{status}").status == int(status)
    page = page_with(
        port,
        requests={
            "GET 2xx": 6,
            "GET 4xx": 2,
            "HEAD 3xx": 2,
            "POST 2xx": 3,
            "PUT 2xx": 1,
            "PATCH 4xx": 1,
            "DELETE 5xx": 1,
            "OPTIONS 2xx": 1,
        },
        request_duration_seconds_count=17,
        queue_seconds_count=17,
        connections_accepted_total=17,
    )
    assert page.total("picowsgi_refused_total") == 0


def test_no_client_can_make_a_label(counted):
    server, port = counted()
    before = read_page(port)
    methods = ["get", "GETS", "GE", "PROPFIND", "X" * 32, "'\"{}\\".replace('"', ""), "a=b"]
    good = [method for method in methods if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", method)]
    assert 4 < len(good) < len(methods)
    for method in methods:
        assert ask_for(server, method).status == (200 if method in good else 400), method
    after = page_with(port, requests={"other 2xx": len(good)})
    assert after.samples.keys() == before.samples.keys()


def test_a_method_of_a_repeated_request_is_known(counted):
    server, port = counted()
    with connect(server) as client:
        for _ in range(10):
            client.send(b"DELETE /404 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.read_response().status == 404
        page_with(port, requests={"DELETE 4xx": 10}, connections_accepted_total=1)
        client.send(b"DELETE /404 HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
        for _ in range(20):
            client.read_response()
    page_with(port, requests={"DELETE 4xx": 30}, connections_accepted_total=1, connections=0)


def test_the_bytes_of_the_connections_are_counted(counted):
    server, port = counted()
    sent = received = 0
    requests = [
        b"GET /?100000 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + bytes(300000),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # it has no Host, and is refused
        b"GET /404?20 HTTP/1.1\r\nHost: a\r\n\r\n" * 3,
    ]
    for request in requests:
        answers = raw(server, request, count=request.count(b" HTTP/1.1"))
        sent, received = sent + len(request), received + len(answers)
    page_with(port, received_bytes_total=sent, sent_bytes_total=received)


def test_the_bytes_of_a_response_are_counted_while_it_is_sent(counted):
    gate = threading.Event()

    def stream(_environ, start_response):
        start_response("200 OK", [])
        yield b"x" * 5000
        assert gate.wait(10)
        yield b"y" * 5000

    server, port = counted(stream)
    with connect(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.wait_for_bytes()
        wait_until(lambda: read_page(port).total("picowsgi_sent_bytes_total") > 5000, "its bytes")
        page = read_page(port)
        gate.set()
        client.read_response()
    assert page.requests == {}
    assert page.value("picowsgi_threads_busy") == 1
    page_with(port, requests={"GET 2xx": 1}, sent_bytes_total=len(client.received))


@pytest.mark.parametrize("reason", REASONS)
def test_refused_requests_are_counted_by_reason(counted, reason):
    request, status = REASONS[reason]
    server, port = counted(
        timeout_head=0.1, timeout_body=0.1, max_body_size=1000, max_head_size=32768
    )
    assert exchange(server, request)[0].status == status
    page = page_with(port, refused_total=1, connections=0)
    assert page.labelled("picowsgi_refused_total", "reason") == {reason: 1}
    assert page.requests == {}


def test_connections_with_a_bad_proxy_header_are_counted(counted):
    server, port = counted(proxy_protocol=True, forwarded_allow_ips="127.0.0.1")
    good = b"PROXY UNKNOWN\r\nGET / HTTP/1.0\r\n\r\n"
    for start in (b"GET / HTTP/1.1\r\n", b"PROXY TCP5 \r\n", good):
        with connect(server) as client:
            client.send(start)
            client.end()
    page_with(port, proxy_headers_refused_total=2, connections_accepted_total=3)


def test_the_buckets_of_the_duration_and_of_the_queue(counted):
    def slow(environ, start_response):
        time.sleep(float(environ["QUERY_STRING"] or 0))
        start_response("200 OK", [])
        return []

    server, port = counted(slow)
    for seconds in ("", "", "0.03", "0.3"):
        exchange(server, f"GET /?{seconds} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    page = page_with(port, request_duration_seconds_count=4, queue_seconds_count=4)
    for name in ("request_duration", "queue"):
        buckets = [page.value(f"picowsgi_{name}_seconds_bucket", le=str(bound)) for bound in BOUNDS]
        assert buckets == sorted(buckets)
        assert buckets[-1] == page.value(f"picowsgi_{name}_seconds_count") == 4
    durations = "picowsgi_request_duration_seconds"
    assert page.value(f"{durations}_bucket", le="0.025") <= 2
    assert page.value(f"{durations}_bucket", le="0.25") <= 3
    assert page.value(f"{durations}_sum") >= 0.33
    assert page.value("picowsgi_queue_seconds_sum") < page.value(f"{durations}_sum") - 0.3


def test_the_time_of_an_upload_is_in_the_duration_and_not_in_the_queue(counted):
    server, port = counted()
    with connect(server) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx")
        wait_until(lambda: read_page(port).total("picowsgi_received_bytes_total") > 0, "its head")
        time.sleep(0.3)
        client.send(b"x")
        client.read_response()
    page = page_with(port, request_duration_seconds_count=1)
    assert page.value("picowsgi_request_duration_seconds_sum") >= 0.3
    assert page.value("picowsgi_queue_seconds_sum") < 0.25


def test_an_error_of_the_application_counts_as_a_5xx(counted):
    def fails(_environ, _start_response):
        raise ValueError("broken")

    server, port = counted(fails)
    assert ask_for(server, "POST").status == 500
    page_with(port, requests={"POST 5xx": 1})


def test_health_checks_are_not_requests_of_the_application(counted):
    server, port = counted(health="/ready")
    assert ask_for(server, path="/ready").status == 200
    page = page_with(port, connections_accepted_total=1, connections=0)
    assert page.requests == {}
    assert page.value("picowsgi_sent_bytes_total") > 0


# The current numbers


def test_connections_are_idle_or_active(counted):
    server, port = counted()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(5)]
        for client in clients[:3]:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.read_response()
        clients[0].send(b"GET / HT")

        def states():
            page = read_page(port)
            return [page.value("picowsgi_connections", state=state) for state in ("idle", "active")]

        wait_until(lambda: states() == [4, 1], "4 idle connections and one with a part of a head")
    page_with(port, connections=0, connections_accepted_total=5)


class Stuck:
    """An application whose requests do not end, until the test releases them."""

    def __init__(self):
        self.released = threading.Event()
        self.inside = 0

    def __call__(self, _environ, start_response):
        self.inside += 1
        assert self.released.wait(20)
        start_response("200 OK", [])
        return []


@pytest.fixture
def stuck():
    made = []

    def make():
        made.append(Stuck())
        return made[-1]

    yield make
    for one in made:
        one.released.set()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_page_is_served_while_all_threads_are_stuck(counted, stuck, threads):
    app = stuck()
    server, port = counted(app, threads=threads, loops=1)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(threads + 4)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        page = page_with(
            port,
            threads=threads,
            threads_busy=threads,
            queue_length=4,
            connections=threads + 4,
            received_bytes_total=(threads + 4) * 27,
        )
        assert app.inside == threads
        assert page.value("picowsgi_connections", state="active") == threads + 4
        app.released.set()
        for client in clients:
            assert client.read_response().status == 200
    page = page_with(
        port, requests={"GET 2xx": threads + 4}, threads_busy=0, queue_length=0, connections=0
    )
    assert page.value("picowsgi_threads") == threads


def test_a_request_that_waits_too_long_for_a_thread_is_a_refused_one(counted, stuck):
    app = stuck()
    server, port = counted(app, threads=1, timeout_queue=0.1)
    with connect(server) as first, connect(server) as second:
        for client in (first, second):
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert second.read_response().status == 503
        page = page_with(port, refused_total=1, queue_length=0, threads_busy=1)
        assert page.labelled("picowsgi_refused_total", "reason") == {"queue": 1}
        app.released.set()
        assert first.read_response().status == 200
    page_with(port, requests={"GET 2xx": 1})


def test_counters_never_decrease_and_agree_while_clients_send_requests(counted):
    server, port = counted(threads=4)
    over = threading.Event()
    sent = [0, 0]

    def load(number):
        with connect(server) as client:
            while not over.is_set():
                client.send(b"GET /?10 HTTP/1.1\r\nHost: a\r\n\r\n" * 4)
                for _ in range(4):
                    assert client.read_response().status == 200
                sent[number] += 4

    threads = [threading.Thread(target=load, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        before = read_page(port)
        until = time.monotonic() + 1.5
        pages = 0
        while time.monotonic() < until:
            page = read_page(port)
            pages += 1
            earlier = before.counters()
            assert all(value >= earlier[key] for key, value in page.counters().items())
            # A thread counts a request in the queue first, then its response, then its duration.
            taken = page.value("picowsgi_queue_seconds_count")
            ended = page.value("picowsgi_request_duration_seconds_count")
            assert abs(page.total("picowsgi_requests_total") - ended) <= taken + 4
            before = page
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert pages > 10
    total = sum(sent)
    page_with(
        port,
        requests={"GET 2xx": total},
        request_duration_seconds_count=total,
        queue_seconds_count=total,
        received_bytes_total=total * 30,
        connections=0,
    )


# The page


def test_the_page_names_the_build_and_the_process(counted):
    _, port = counted(threads=7)
    page = read_page(port)
    (labels,) = [dict(labels) for name, labels in page.samples if name == "picowsgi_info"]
    assert labels["version"] == picowsgi.__version__
    assert re.fullmatch(r"3\.\d+\.\d+.*", labels["python"])
    assert labels["poller"] in ("epoll", "kqueue", "poll")
    assert labels.keys() == {"version", "python", "poller"}
    assert page.value("picowsgi_workers") == 1
    assert page.value("picowsgi_threads") == 7
    assert 1 << 20 < page.value("process_resident_memory_bytes") < 1 << 34
    assert 0 < page.value("process_cpu_seconds_total") < 3600
    assert 0 <= time.time() - page.value("process_start_time_seconds") < 3600
    assert set(page.types) == {
        "picowsgi_requests_total",
        "picowsgi_request_duration_seconds",
        "picowsgi_queue_seconds",
        "picowsgi_received_bytes_total",
        "picowsgi_sent_bytes_total",
        "picowsgi_connections",
        "picowsgi_connections_accepted_total",
        "picowsgi_proxy_headers_refused_total",
        "picowsgi_threads",
        "picowsgi_threads_busy",
        "picowsgi_queue_length",
        "picowsgi_refused_total",
        "picowsgi_workers",
        "picowsgi_worker_restarts_total",
        "picowsgi_dropped_log_lines_total",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
        "picowsgi_info",
    }


def test_the_page_has_two_paths_and_two_methods(counted):
    _, port = counted()
    for path in ("/metrics", "/", "/metrics?x=y"):
        status, headers, body = fetch(port, path)
        assert (status, headers["Content-Type"]) == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        )
        assert int(headers["Content-Length"]) == len(body)
        assert (headers["Connection"], headers["Cache-Control"]) == ("close", "no-store")
        assert "Date" in headers
        Page(body)
    status, headers, body = fetch(port, method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000
    assert fetch(port, "/other")[0] == 404
    for method in ("POST", "DELETE", "get"):
        status, headers, _ = fetch(port, method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD"), method


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /metrics HTTP/3.1\r\nHost: a\r\n\r\n", 505),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100000, 431),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 120 + b"\r\n", 431),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200),
        (b"GET http://a/metrics HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ],
    ids=lambda value: value[:20].decode() if isinstance(value, bytes) else None,
)
def test_the_page_is_served_as_strictly_as_the_application(counted, request_, status):
    _, port = counted()
    for piece in (len(request_), 7):
        with RawClient(port) as client:
            for start in range(0, min(len(request_), 12000), piece):
                client.send(request_[start : start + piece])
            assert client.read_response().status == status
            client.read_to_end()


def test_clients_that_send_nothing_do_not_keep_others_away(counted):
    _, port = counted()
    with ExitStack() as stack:
        for _ in range(30):  # more than the places of the exporter
            stack.enter_context(RawClient(port)).send(b"GET /metr")
        with RawClient(port, timeout=30) as client:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            before = time.monotonic()
            assert client.read_response().status == 200
            assert time.monotonic() - before < 10


def test_many_clients_get_the_page_at_the_same_time(counted):
    _, port = counted()
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in range(40)]
        for client in clients:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in clients:
            assert client.read_response().status == 200
            client.close()


def test_metrics_on_a_unix_socket(serve, tmp_path):
    path = tmp_path / "metrics"
    server = serve(application, metrics=f"unix:{path}", unix_socket_mode=0o600)
    assert server.metrics_url == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        data = b""
        while part := client.recv(65536):
            data += part
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    server.stop()
    assert not path.exists()


def test_metrics_on_ipv6(serve):
    server = serve(application, metrics="[::1]:0")
    port = int(re.fullmatch(r"http://\[::1\]:(\d+)/metrics", server.metrics_url)[1])
    with socket.create_connection(("::1", port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_server_without_the_option_has_no_metrics(serve):
    assert serve(application).metrics_url == ""


def test_the_page_ends_with_the_server_and_every_server_counts_for_itself(counted):
    first, port = counted()
    second, other = counted()
    ask_for(first)
    page_with(port, requests={"GET 2xx": 1})
    page_with(other, requests={})
    first.stop()
    with pytest.raises(ConnectionRefusedError):
        read_page(port)
    assert ask_for(second).status == 200
    page_with(other, requests={"GET 2xx": 1})


def test_a_server_that_never_started_ends_its_socket():
    server = picowsgi.Server(application, port=0, metrics=ANY)
    port = port_of(server.metrics_url)
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        read_page(port)


# Wrong addresses


@pytest.mark.parametrize("text", ["9100", ":b", "a:b", "127.0.0.1", "fd://3", "unix:", "::1:9"])
def test_a_malformed_address_is_refused(text):
    with pytest.raises(ConfigError, match="option metrics: expected"):
        picowsgi.Server(application, port=0, metrics=text)


def test_an_address_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError, match=f"--metrics: cannot listen on {address}: the port is"):
            picowsgi.Server(application, port=0, metrics=address)
