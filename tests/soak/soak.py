# ruff: noqa: T201 (it prints its results)
"""Mixed load with faults, and a check of the memory and the descriptors of the server.

    PYTHONPATH=tests python -m soak.soak [--seconds T] [--clients N] [--seed S]

Clients act at random, by the seed. They send requests one after the other and pipelined, uploads
and half-closes, and get large responses. They also misbehave: resets at any point, garbage, slow
heads, unread responses, slow requests. Each second the program records the descriptors, memory,
threads and CPU of the server.

Exits with status 1 if an ordinary request did not get its exact response, if the server has died,
if its log has an unexpected line, or if at the end

- memory is more than a tenth and 4 MiB over that of the first minute (of the first third, where
  that is shorter), each the median of its last ten seconds under load;
- descriptors are not as many as before the load, once the connections have had time to end.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from soak.applications import LARGE
from soak.process import MEBIBYTE, open_files, threads
from soak.server import ServerProcess
from support import RawClient, cpu_seconds, resident_bytes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Response

# Short ones, so that each expires many times.
OPTIONS = (
    "--timeout-head=1",
    "--timeout-body=1",
    "--timeout-write=3",
    "--timeout-keep-alive=2",
    "--max-body-size=4M",
    "--body-memory=64K",
    "--response-buffer=256K",
)
# glibc has a heap for each thread. The memory that it keeps in heaps of late threads looks like a
# leak. With one heap for all, a leak is visible.
ENVIRON = {"MALLOC_ARENA_MAX": "1"}
TIMEOUT = 60.0
MEMORY_FACTOR = 1.1
MEMORY_MORE = 4 * MEBIBYTE
WINDOW = 10

DIGEST = hashlib.sha256(LARGE).digest()


class UnexpectedAnswerError(Exception):
    """An ordinary request did not get its exact response."""


class Client:
    """One thread of clients, one after the other, of random kinds."""

    def __init__(self, port: int, seed: str) -> None:
        self.port = port
        self.random = Random(seed)
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.errors: list[str] = []

    def run(self, over: Callable[[], bool]) -> None:
        while not over():
            faulty = self.random.random() < 0.4
            one = self.random.choice(FAULTS if faulty else ORDINARY)
            name = one.__name__.strip("_")
            try:
                one(self)
            except (AssertionError, OSError, UnexpectedAnswerError) as error:
                # A fault may end in an error of the connection.
                if not faulty or isinstance(error, UnexpectedAnswerError):
                    self.errors.append(f"{name}: {error!r}")
            if faulty:
                self.faults[name] += 1

    # ---------------------------------------------------------------- expected responses

    def connect(self, *, slow: bool = False) -> RawClient:
        buffer = 4_096 if slow else None
        return RawClient(self.port, timeout=TIMEOUT, receive_buffer=buffer)

    def expect(self, name: str, response: Response, status: int, content: bytes) -> None:
        good = response.status == status and response.complete and response.content == content
        if not good:
            raise UnexpectedAnswerError(
                f"{name}: expected {status} {content[:60]!r} ({len(content)} bytes), got "
                f"{response.status} {response.content[:60]!r} ({len(response.content)} bytes), "
                f"complete: {response.complete}"
            )
        self.answered[name] += 1

    def get(self) -> tuple[str, bytes, int, bytes]:
        """A request for something small: its name, its bytes, the expected status and content."""
        kind = self.random.choice(["hello", "hello", "hello", "blocking", "failing"])
        if kind == "hello":
            number = b"%d" % self.random.randrange(1 << 30)
            target, status, content = b"/?" + number, 200, b"hello " + number
        elif kind == "blocking":
            target, status, content = b"/blocking", 200, b"blocked"
        else:
            target, status, content = b"/failing", 500, b"Internal Server Error\n"
        fields = b"".join(
            b"X-Field-%d: %s\r\n" % (number, b"x" * self.random.randrange(200))
            for number in range(self.random.randrange(8))
        )
        return kind, b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (target, fields), status, content

    def put(self) -> tuple[str, bytes, int, bytes]:
        """The same for an upload."""
        size = int(2 ** self.random.uniform(0, 21))
        content = self.random.randbytes(min(size, 4_096)) * (size // 4_096 + 1)
        content = content[:size]
        expected = f"{size} {hashlib.sha256(content).hexdigest()}".encode()
        head = b"PUT /echo HTTP/1.1\r\nHost: a\r\n"
        if self.random.random() < 0.5:
            data = head + b"Content-Length: %d\r\n\r\n%s" % (size, content)
            return "upload", data, 200, expected
        pieces = [head, b"Transfer-Encoding: chunked\r\n\r\n"]
        at = 0
        while at < size:
            end = at + int(2 ** self.random.uniform(0, 18)) + size // 1_000
            pieces.append(b"%x\r\n%s\r\n" % (len(content[at:end]), content[at:end]))
            at = end
        return "chunked upload", b"".join([*pieces, b"0\r\n\r\n"]), 200, expected

    def download(self) -> tuple[str, bytes, int, bytes]:
        """The same for a large response."""
        name = self.random.choice(["large", "parts", "streamed", "written", "file"])
        return name, b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % name.encode(), 200, LARGE

    def any(self) -> tuple[str, bytes, int, bytes]:
        return self.random.choice([self.get, self.get, self.get, self.put, self.download])()

    # ---------------------------------------------------------------- ordinary clients

    def one_after_the_other(self) -> None:
        with self.connect() as client:
            for _ in range(self.random.randrange(1, 30)):
                name, data, status, content = self.any()
                client.send(data)
                self.expect(name, client.read_response(), status, content)

    def pipelined(self) -> None:
        requests = [self.any() for _ in range(self.random.randrange(2, 30))]
        data = b"".join(one[1] for one in requests)
        with self.connect() as client:
            self._send_in_pieces(client, data)
            for name, _, status, content in requests:
                self.expect(name, client.read_response(), status, content)

    def half_closed(self) -> None:
        name, data, status, content = self.any()
        with self.connect() as client:
            client.send(data)
            client.half_close()
            self.expect(f"{name}, half-closed", client.read_response(), status, content)
            client.read_nothing_more()

    def reconnecting(self) -> None:
        for _ in range(20):
            name, data, status, content = self.get()
            with self.connect() as client:
                client.send(data)
                self.expect(name, client.read_response(), status, content)

    def reading_slowly(self) -> None:
        name, data, status, content = self.download()
        with self.connect(slow=True) as client:
            client.send(data)
            for _ in range(10):
                client.read_some(20_000)
                time.sleep(0.02)
            self.expect(f"{name}, slowly", client.read_response(), status, content)

    def of_http_1_0(self) -> None:
        name, data, status, content = self.any()
        if name == "chunked upload":
            return
        with self.connect() as client:
            client.send(data.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1))
            self.expect(f"{name}, HTTP/1.0", client.read_response(), status, content)
            client.read_nothing_more()

    # ---------------------------------------------------------------- faults

    def leaving_in_the_request(self) -> None:
        data = self.any()[1]
        with self.connect() as client:
            client.send(data[: self.random.randrange(len(data))])
            self._leave(client)

    def leaving_in_the_response(self) -> None:
        with self.connect(slow=self.random.random() < 0.5) as client:
            for _ in range(self.random.randrange(1, 10)):
                client.send(self.any()[1])
            for _ in range(self.random.randrange(4)):
                client.read_some(self.random.randrange(1, 200_000))
            self._leave(client)

    def leaving_at_once(self) -> None:
        for client in [self.connect() for _ in range(self.random.randrange(1, 20))]:
            self._leave(client)

    def sending_garbage(self) -> None:
        with self.connect() as client:
            data = bytearray(self.any()[1])
            for _ in range(self.random.randrange(1, 20)):
                data[self.random.randrange(len(data))] = self.random.randrange(256)
            client.send(data if self.random.random() < 0.7 else self.random.randbytes(3_000))
            if self.random.random() < 0.5:
                client.half_close()
                client.end()

    def refused(self) -> None:
        data, status = self.random.choice(REFUSED)
        with self.connect() as client:
            client.send(data)
            response = client.read_response()
            if response.status != status:
                raise UnexpectedAnswerError(f"expected {status} for {data[:60]!r}, got {response}")
            self.answered[f"refused with {status}"] += 1
            client.end()

    def stopping_in_the_request(self) -> None:
        data = self.any()[1]
        with self.connect() as client:
            client.send(data[: self.random.randrange(len(data))])
            client.end()  # a timeout, and 408

    def dripping(self) -> None:
        data = self.any()[1]
        with self.connect() as client:
            for at in range(0, 40, 2):
                if not client.send(data[at : at + 2]):
                    break
                time.sleep(0.1)
            client.end()

    def never_reading(self) -> None:
        with self.connect(slow=True) as client:
            client.send(self.download()[1])
            time.sleep(self.random.uniform(0.1, 4))
            self._leave(client)

    def broken_off(self) -> None:
        with self.connect() as client:
            client.send(b"GET /breaking HTTP/1.1\r\nHost: a\r\n\r\n")
            response = client.read_response()
            if response.complete or response.content != b"one":
                raise UnexpectedAnswerError(f"expected a response that breaks off, got {response}")

    def _leave(self, client: RawClient) -> None:
        self.random.choice([client.close, client.reset, client.half_close])()

    def _send_in_pieces(self, client: RawClient, data: bytes) -> None:
        at = 0
        while at < len(data):
            end = at + int(2 ** self.random.uniform(4, 20))
            if not client.send(data[at:end]):
                raise UnexpectedAnswerError("the server has closed before it had all requests")
            at = end


ORDINARY = [
    Client.one_after_the_other,
    Client.one_after_the_other,
    Client.pipelined,
    Client.half_closed,
    Client.reconnecting,
    Client.reading_slowly,
    Client.of_http_1_0,
]
FAULTS = [
    Client.leaving_in_the_request,
    Client.leaving_in_the_response,
    Client.leaving_at_once,
    Client.sending_garbage,
    Client.refused,
    Client.stopping_in_the_request,
    Client.dripping,
    Client.never_reading,
    Client.broken_off,
]
REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505),
    (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413),
    (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    (b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 20_000), 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (b"x" * 70_000), 431),
    (b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 5\r\n\r\n", 417),
]


class Sample(NamedTuple):
    """The server in one second."""

    at: float  # seconds since the beginning
    descriptors: int
    memory: int
    threads: int
    cpu: float  # seconds in all


def take_sample(server: ServerProcess, begin: float) -> Sample:
    return Sample(
        at=time.monotonic() - begin,
        descriptors=len(open_files(server.pid)),
        memory=resident_bytes(server.pid),
        threads=threads(server.pid),
        cpu=cpu_seconds(server.pid),
    )


def load(
    server: ServerProcess, seconds: float, clients: list[Client]
) -> tuple[list[Sample], list[str]]:
    """Run the clients for so long, and record the server; return the records and the faults."""
    begin = time.monotonic()
    samples: list[Sample] = []

    def over() -> bool:
        return not server.alive or time.monotonic() - begin >= seconds

    running = [threading.Thread(target=one.run, args=[over]) for one in clients]
    for thread in running:
        thread.start()
    print("seconds  answered  faults  errors  descriptors  memory MiB  threads  CPU s")
    while not over():
        time.sleep(1)
        if not server.alive:
            break
        samples.append(take_sample(server, begin))
        if len(samples) % max(1, round(seconds / 12)) == 0:
            print_line(samples[-1], clients)
    for thread in running:
        thread.join(3 * TIMEOUT)
    stuck = sum(thread.is_alive() for thread in running)
    wrong = [f"{stuck} clients are stuck"] if stuck else []
    return samples, [*wrong, *(error for one in clients for error in one.errors)]


def print_line(sample: Sample, clients: list[Client]) -> None:
    answered = sum(one.answered.total() for one in clients)
    faults = sum(one.faults.total() for one in clients)
    errors = sum(len(one.errors) for one in clients)
    print(
        f"{sample.at:7.0f} {answered:9} {faults:7} {errors:7} {sample.descriptors:12} "
        f"{sample.memory / MEBIBYTE:11.1f} {sample.threads:8} {sample.cpu:6.1f}",
        flush=True,
    )


def compare_memory(samples: list[Sample], seconds: float) -> list[str]:
    """The faults of the memory at the end."""
    first_end = min(60.0, seconds / 3)
    early = [one.memory for one in samples if first_end - WINDOW <= one.at <= first_end]
    late = [one.memory for one in samples[-WINDOW:]]
    if not early or not late:
        return ["the run was too short to compare anything"]
    before, after = statistics.median(early), statistics.median(late)
    most = before * MEMORY_FACTOR + MEMORY_MORE
    print(
        f"memory: {before / MEBIBYTE:.1f} MiB at {first_end:.0f} s, "
        f"{after / MEBIBYTE:.1f} MiB at the end (at most {most / MEBIBYTE:.1f})"
    )
    return [] if after <= most else [f"memory has grown from {before:.0f} to {after:.0f} bytes"]


def compare_descriptors(server: ServerProcess, before: list[str]) -> list[str]:
    """The faults of the descriptors after all connections have had time to end."""
    try:
        wait_until(
            lambda: len(open_files(server.pid)) <= len(before), "the connections to end", timeout=30
        )
    except AssertionError:
        left = Counter(open_files(server.pid)) - Counter(before)
        return [f"descriptors are left: {dict(left)}"]
    print(f"descriptors: {len(before)} before, {len(open_files(server.pid))} after")
    return []


def check_log(server: ServerProcess) -> list[str]:
    """Lines of the log that the clients did not cause."""
    meant = ("as it is meant to", "/failing", "/breaking", "picowsgi ", "http://", "press Ctrl-C")
    meant += ("(--timeout-write)",)  # of clients that never read
    strange = [
        line
        for line in server.log.read_text("utf-8", "replace").splitlines()
        if line and not line.startswith((" ", "Traceback")) and not any(m in line for m in meant)
    ]
    return [f"the server has written: {line}" for line in strange[:10]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", default=str(time.time_ns()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.clients} clients, {arguments.seconds:.0f} s")
    with (
        tempfile.TemporaryDirectory() as name,
        ServerProcess("soak.applications:mixed", Path(name), *OPTIONS, environ=ENVIRON) as server,
    ):
        before = open_files(server.pid)
        clients = [
            Client(server.port, f"{arguments.seed}:{number}") for number in range(arguments.clients)
        ]
        samples, wrong = load(server, arguments.seconds, clients)
        print_counts("answered", [one.answered for one in clients])
        print_counts("faults", [one.faults for one in clients])
        if server.alive:
            wrong += compare_memory(samples, arguments.seconds)
            wrong += compare_descriptors(server, before)
            status = server.stop()
            wrong += [f"the server has ended with {status}"] if status else []
        else:
            wrong.append(f"the server has died, with {server.stop()}")
        wrong += check_log(server)
    for line in wrong[:20]:
        print(f"WRONG: {line}")
    print(f"{len(wrong)} wrong" if wrong else "all well")
    return 1 if wrong else 0


def print_counts(title: str, counters: list[Counter[str]]) -> None:
    total: Counter[str] = sum(counters, Counter())
    print(f"{title}: " + ", ".join(f"{count} {name}" for name, count in total.most_common()))


if __name__ == "__main__":
    sys.exit(main())
