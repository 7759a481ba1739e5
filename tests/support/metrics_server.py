"""A page of metrics, and a server that sends it, for tests of programs that read such pages."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from support.client import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
INFO = 'picowsgi_info{version="1.2.3",python="3.12.1",poller="epoll"} 1\n'

_REQUESTS = {("GET", "2xx"): 70, ("POST", "2xx"): 10, ("GET", "4xx"): 20}


def histogram(name: str, durations: Mapping[float, int]) -> str:
    """Return the lines of a histogram with so many durations of each length."""
    lines = [
        f'{name}_bucket{{le="{bound}"}} {sum(n for d, n in durations.items() if d <= bound)}'
        for bound in BOUNDS
    ]
    count = sum(durations.values())
    lines += [
        f'{name}_bucket{{le="+Inf"}} {count}',
        f"{name}_sum {sum(d * n for d, n in durations.items())}",
        f"{name}_count {count}",
    ]
    return "# TYPE {} histogram\n{}\n".format(name, "\n".join(lines))


def page(step: int = 0, *, start: float = 1000.0) -> str:
    """Return the page of a server that has done its work of one second `step` times.

    That work is 80 requests with the status 200 and 20 with 404. 50 take 0.7 ms, 49 take 4 ms and
    one takes 60 s; all wait 0.2 ms in the queue.
    """
    return (
        INFO
        + "# HELP picowsgi_requests_total Requests.\n# TYPE picowsgi_requests_total counter\n"
        + "".join(
            f'picowsgi_requests_total{{method="{method}",status="{status}"}} '
            f"{_REQUESTS.get((method, status), 0) * step}\n"
            for method in ("GET", "POST", "other")
            for status in ("1xx", "2xx", "3xx", "4xx", "5xx")
        )
        + histogram(
            "picowsgi_request_duration_seconds",
            {0.0007: 50 * step, 0.004: 49 * step, 60.0: step},
        )
        + histogram("picowsgi_queue_seconds", {0.0002: 100 * step})
        + f"picowsgi_received_bytes_total {2048 * step}\n"
        + f"picowsgi_sent_bytes_total {1048576 * step}\n"
        + 'picowsgi_connections{state="idle"} 7\npicowsgi_connections{state="active"} 5\n'
        + f"picowsgi_connections_accepted_total {3 * step}\n"
        + "picowsgi_threads 16\npicowsgi_threads_busy 4\npicowsgi_queue_length 0\n"
        + f'picowsgi_refused_total{{reason="timeout_head"}} {step}\n'
        + 'picowsgi_refused_total{reason="malformed"} 0\n'
        + "picowsgi_workers 2\n"
        + 'picowsgi_worker_restarts_total{reason="memory"} 1\n'
        + "picowsgi_dropped_log_lines_total 0\n"
        + "process_resident_memory_bytes 104857600\n"
        + f"process_cpu_seconds_total {0.5 * step}\n"
        + f"process_start_time_seconds {start}\n"
    )


def response(body: str | bytes, status: str = "200 OK") -> bytes:
    """Return a whole HTTP response with this body."""
    data = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


class MetricsServer:
    """Sends `respond(number)` to the request of that number, as a context manager.

    By default each request gets the page of the next step. `respond` may return None: then the
    client gets no response until the server ends. `requests` has the heads that came.
    """

    def __init__(
        self,
        respond: Callable[[int], bytes | None] = lambda number: response(page(number)),
        path: Path | None = None,
        port: int = 0,
    ) -> None:
        self._respond = respond
        if path is not None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(path))
            self._socket.listen()
            self.address = f"unix:{path}"
        else:
            self._socket = socket.create_server(("127.0.0.1", port))
            self.port = self._socket.getsockname()[1]
            self.address = f"127.0.0.1:{self.port}"
        self.requests: list[bytes] = []
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # this ends accept
        self._thread.join(TIMEOUT)
        self._socket.close()
        for client in self._held:
            client.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            client.settimeout(TIMEOUT)
            head = b""
            while b"\r\n\r\n" not in head and (part := client.recv(4096)):
                head += part
            self.requests.append(head)
            data = self._respond(len(self.requests))
            if data is None:
                self._held.append(client)
                continue
            with client, suppress(OSError):  # the client may not want all of it
                client.sendall(data)
