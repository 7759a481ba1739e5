"""Decides when the next worker may start after others have died.

Never starts a worker.
"""

from __future__ import annotations

import math

_FIRST = 0.1  # seconds
_MOST = 30.0
_HEALTHY = 60.0


class Respawn:
    """The pause before the next start: none after a first failure, then longer and longer ones.

    After a minute without a failure the count starts again.
    """

    def __init__(self) -> None:
        #: The time of the next start (`time.monotonic`). Without a failure it is in the past.
        self.due = -math.inf
        self._failures = 0
        self._failed_at = -math.inf

    def failed(self, now: float) -> None:
        """Note that a worker has died."""
        if now - self._failed_at > _HEALTHY:
            self._failures = 0
        delay = 0.0
        if self._failures > 0:
            delay = min(_MOST, _FIRST * 2.0 ** min(self._failures - 1, 16))
        self._failures += 1
        self._failed_at = now
        self.due = now + delay

    def reset(self) -> None:
        """Forget the failures: a reload may have removed their cause."""
        self._failures = 0
        self.due = -math.inf
