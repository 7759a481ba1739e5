# ruff: noqa: T201 (it prints its results)
"""Measures the speed and the CPU time of a large file, compared with nginx.

    PYTHONPATH=tests python -m soak.file_speed [--size MIB] [--rounds N]

Each round gets the file once from nginx (one process, `sendfile on`, a configuration of its own)
and once from picowsgi. The server has the first CPU and the client the second. Exits with status 1
if the median rate is less than 0.9 of that of nginx, or the median CPU time more than 1.2 of it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from soak.process import MEBIBYTE, run_seconds
from soak.server import ServerProcess

LEAST_RATE = 0.9
MOST_CPU = 1.2
TIMEOUT = 60.0
ON_FIRST_CPU = ("taskset", "-c", "0")

CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
{user}
events {{ }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {directory}/temporary;
    proxy_temp_path {directory}/temporary;
    fastcgi_temp_path {directory}/temporary;
    uwsgi_temp_path {directory}/temporary;
    scgi_temp_path {directory}/temporary;
    server {{
        listen 127.0.0.1:{port};
        root {directory};
    }}
}}
"""


class Nginx:
    """One nginx process that serves a directory, with the interface of ServerProcess."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            raise SystemExit("this needs nginx (apt-get install nginx-light)")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        configuration = directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        text = CONFIGURATION.format(directory=directory, port=self.port, user=user)
        configuration.write_text(text)
        self._process = subprocess.Popen(
            [*ON_FIRST_CPU, program, "-c", str(configuration)], stderr=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        self._wait_until_it_listens(directory)

    def __enter__(self) -> Nginx:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def _wait_until_it_listens(self, directory: Path) -> None:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"nginx has not started: {(directory / 'error.log').read_text()}")


class Sample(NamedTuple):
    seconds: float
    cpu_seconds: float


def get(port: int, size: int, digest: hashlib._Hash | None = None) -> None:
    """Get the file. Without a digest, count its bytes and discard them."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(TIMEOUT)
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        if not head.startswith(b"HTTP/1.1 200 ") or b"Content-Length: %d\r\n" % size not in head:
            raise RuntimeError(f"expected 200 and {size} bytes, got {head!r}")
        client.settimeout(None)
        buffer = bytearray(4 * MEBIBYTE)
        flags = socket.MSG_TRUNC if digest is None else 0  # tcp(7): discards without copying
        while received := client.recv_into(buffer, 0, flags):
            size -= received
            if digest is not None:
                digest.update(memoryview(buffer)[:received])
    if size != 0:
        raise RuntimeError(f"{size} bytes are missing")


def sample(server: Nginx | ServerProcess, size: int) -> Sample:
    cpu, begin = run_seconds(server.pid), time.perf_counter()
    get(server.port, size)
    took = time.perf_counter() - begin
    return Sample(took, run_seconds(server.pid) - cpu)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    subprocess.run(["taskset", "-p", "-c", "1", str(os.getpid())], check=True, capture_output=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o755)
        expected = hashlib.sha256()
        with (directory / "large").open("wb") as file:
            for number in range(arguments.size):
                block = hashlib.sha512(b"%d" % number).digest() * (MEBIBYTE // 64)
                expected.update(block)
                file.write(block)
        servers: dict[str, Nginx | ServerProcess] = {
            "nginx": stack.enter_context(Nginx(directory)),
            "picowsgi": stack.enter_context(
                ServerProcess("soak.applications:files", directory, before=ON_FIRST_CPU)
            ),
        }
        size = arguments.size * MEBIBYTE
        for name, server in servers.items():
            found = hashlib.sha256()
            get(server.port, size, found)
            if found.digest() != expected.digest():
                raise RuntimeError(f"what {name} sends is not the file")
        samples: dict[str, list[Sample]] = {name: [] for name in servers}
        for _ in range(arguments.rounds):
            for name, server in servers.items():
                samples[name].append(sample(server, size))
    return report(arguments.size, samples)


def report(size: int, samples: dict[str, list[Sample]]) -> int:
    """Print the table; return the exit status."""
    print(
        f"{size} MiB     MiB/s (median of {len(samples['nginx'])}, least, most)    CPU ms per GiB"
    )
    rates, costs = {}, {}
    for name, found in samples.items():
        each = [size / one.seconds for one in found]
        rates[name] = statistics.median(each)
        costs[name] = statistics.median(one.cpu_seconds for one in found) / size * 1024 * 1000
        print(f"{name:10} {rates[name]:9.0f} {min(each):9.0f} {max(each):9.0f} {costs[name]:24.0f}")
    rate = rates["picowsgi"] / rates["nginx"]
    cost = costs["picowsgi"] / costs["nginx"]
    print(f"to nginx   {rate:9.2f} {cost:44.2f}")
    return 0 if rate >= LEAST_RATE and cost <= MOST_CPU else 1


if __name__ == "__main__":
    sys.exit(main())
