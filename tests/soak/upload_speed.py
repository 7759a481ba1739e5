# ruff: noqa: T201 (it prints its results)
"""Measures a large upload, compared with `cat` of the same file to the same file system.

    PYTHONPATH=tests python -m soak.upload_speed [--size MIB] [--rounds N] [--directory PATH]

Each round copies with `cat`, uploads with a length and uploads in chunks, after all earlier bytes
are on the disk. Exits with status 1 if the median of an upload is more than 1.5 times that of
`cat`, or if an upload has added 2 MiB to the memory of the server.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from soak.process import MEBIBYTE, forget_greatest_memory, greatest_memory
from soak.server import ServerProcess
from support import resident_bytes

MOST_RATIO = 1.5
MOST_MEMORY = 2 * MEBIBYTE


def make_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(MEBIBYTE))


def cat(source: Path) -> float:
    target = source.with_name("copy")
    with source.open("rb") as stdin, target.open("wb") as stdout:
        begin = time.perf_counter()
        subprocess.run(["cat"], stdin=stdin, stdout=stdout, check=True)
        took = time.perf_counter() - begin
    target.unlink()
    return took


def send_file(client: socket.socket, file: BinaryIO, size: int) -> None:
    while size > 0:
        sent = os.sendfile(client.fileno(), file.fileno(), None, size)
        if sent == 0:
            raise RuntimeError("the file has ended too early")
        size -= sent


def upload(server: ServerProcess, source: Path, *, chunked: bool) -> float:
    """The seconds from the connection to the whole response."""
    size = source.stat().st_size
    begin = time.perf_counter()
    with (
        socket.create_connection(("127.0.0.1", server.port), 600) as client,
        source.open("rb") as file,
    ):
        client.setblocking(True)
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        head = f"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n"
        client.sendall(head.encode())
        if chunked:
            for _ in range(size // MEBIBYTE):
                client.sendall(b"%x\r\n" % MEBIBYTE)
                send_file(client, file, MEBIBYTE)
                client.sendall(b"\r\n")
            client.sendall(b"0\r\n\r\n")
        else:
            send_file(client, file, size)
        answer = b""
        while data := client.recv(65_536):
            answer += data
    took = time.perf_counter() - begin
    if not (answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n%d" % size)):
        raise RuntimeError(f"expected the length {size}, got {answer!r}")
    return took


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="on the file system to measure")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"cat": [], "length": [], "chunked": []}
    added = {"length": 0, "chunked": 0}
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        source, small = directory / "source", directory / "small"
        make_file(source, arguments.size)
        make_file(small, 1)
        with ServerProcess(
            "soak.applications:uploads", directory, "--max-body-size", "0"
        ) as server:
            for chunked in (False, True):
                upload(server, small, chunked=chunked)
            before = resident_bytes(server.pid)
            for _ in range(arguments.rounds):
                for way, found in times.items():
                    os.sync()
                    forget_greatest_memory(server.pid)
                    if way == "cat":
                        found.append(cat(source))
                        continue
                    found.append(upload(server, source, chunked=way == "chunked"))
                    added[way] = max(added[way], greatest_memory(server.pid) - before)
    return report(arguments.size, times, added)


def report(size: int, times: dict[str, list[float]], added: dict[str, int]) -> int:
    """Print the table; return the exit status."""
    good = True
    medians = {way: statistics.median(found) for way, found in times.items()}
    print(
        f"{size} MiB    seconds (median of {len(times['cat'])}, least, most)  to cat  memory added"
    )
    for way, found in times.items():
        ratio = medians[way] / medians["cat"]
        line = f"{way:10} {medians[way]:8.3f} {min(found):8.3f} {max(found):8.3f} {ratio:22.2f}"
        if way in added:
            line += f" {added[way] / MEBIBYTE:9.2f} MiB"
            good = good and ratio <= MOST_RATIO and added[way] < MOST_MEMORY
        print(line)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
