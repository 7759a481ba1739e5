"""The version of the application that open pages of --live-reload know, and the sign of its end.

Never decides when the next version begins: the supervisor does.
"""

from __future__ import annotations

import os
import secrets

from picowsgi.app.live_reload.channel import Channel


class Generation:
    """All workers between two reloads. A page of one generation reloads in the next one.

    The supervisor has the writing end of a pipe, and closes it when the generation ends. So the
    workers notice at once, even those that are busy, and none of them takes part in it.
    """

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._number = 0
        self._pipe = os.pipe()

    def end(self) -> None:
        """Begin the next generation, for workers that start from now on."""
        self.close()
        self._number += 1
        self._pipe = os.pipe()

    def close(self) -> None:
        """Close the pipe."""
        for descriptor in self._pipe:
            os.close(descriptor)

    def channel(self) -> Channel:
        """Return the channel of a worker. Call this once, in the worker."""
        reading, writing = self._pipe
        os.close(writing)
        return Channel(f"{self._name}-{self._number}", reading)
