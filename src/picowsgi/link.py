"""What a worker process and its supervisor say to each other.

A worker writes single bytes to its status pipe. The supervisor says nothing that way: it sends
signals, and its lifeline ends when it does. Never blocks.
"""

from __future__ import annotations

import os
import select
import signal

from picowsgi import forked
from picowsgi.errors import AppImportError

READY = ord("R")
BEAT = ord(".")
REPLACE = ord("X")  # "give me a successor, and stop me when it is ready"
FAILED = ord("F")  # "the application cannot be loaded": JSON follows, up to the end
_FAILURE_MOST = 49152  # less than a pipe holds


class Link:
    """The worker's end."""

    def __init__(self, status: int, lifeline: int, parent: int) -> None:
        self.lifeline = lifeline
        self._status = status
        self._parent = parent
        os.set_blocking(status, False)
        for descriptor in (status, lifeline):
            os.set_inheritable(descriptor, False)
        self._in_children = forked.ClosedInChildren(self._close)

    def _close(self) -> None:
        os.close(self._status)
        os.close(self.lifeline)

    def say(self, byte: int) -> None:
        """Tell the supervisor; one that is gone, or does not listen, is not told."""
        self._write(bytes([byte]))

    def fail(self, error: AppImportError) -> None:
        """Tell the supervisor why there is no application."""
        import json  # only where it fails

        parts = [str(error)[:2000], error.application_traceback[-6000:]]
        text = json.dumps(parts, ensure_ascii=False).encode("utf-8", "backslashreplace")
        self._write(bytes([FAILED]) + text[:_FAILURE_MOST])

    def _write(self, data: bytes) -> None:
        # The application may have given SIGPIPE its default back, which would end the process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        try:
            os.write(self._status, data)
        except BrokenPipeError:
            if signal.SIGPIPE in signal.sigpending():
                signal.sigwait({signal.SIGPIPE})
        except OSError:
            pass
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def is_cut(self) -> bool:
        """Tell whether the supervisor is gone."""
        if os.getppid() != self._parent:
            return True
        poll = select.poll()
        poll.register(self.lifeline, select.POLLIN)
        return bool(poll.poll(0))


def read_failure(text: bytes) -> AppImportError:
    """Return the error that `Link.fail` has sent."""
    import json

    try:
        message, traceback = json.loads(text)
        return AppImportError(str(message), str(traceback))
    except ValueError:
        return AppImportError("the application could not be loaded")
