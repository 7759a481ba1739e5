"""Runs a simple_server in which a signal handler raises KeyboardInterrupt at any point.

    python -m stress.interrupted --port 0 stress.application:application

The program catches the exception and calls `handle_request` again, as an interactive program may.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from contextlib import suppress

from picowsgi.simple_server import WSGIRequestHandler, make_server
from stress.application import application

stopped = False


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def stop(number: int, frame: object) -> None:
    global stopped
    stopped = True


def main() -> int:
    server = make_server("127.0.0.1", 0, application, handler_class=Quiet)
    server.timeout = 0.05
    os.write(2, f"serving on http://127.0.0.1:{server.server_address[1]}\n".encode())
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, interrupt)
    while not stopped:
        with suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.03))
            server.handle_request()
            signal.setitimer(signal.ITIMER_REAL, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
