"""When the next worker may be started after others have died.

Never starts one.
"""

from __future__ import annotations

import math

_FIRST = 0.1  # seconds
_MOST = 30.0
_HEALTHY = 60.0


class Respawn:
    """At once after a first accident, then later and later, until a minute goes well."""

    def __init__(self) -> None:
        #: When, by `time.monotonic`; it is in the past unless something has failed.
        self.due = -math.inf
        self._failures = 0
        self._failed_at = -math.inf

    def failed(self, now: float) -> None:
        """Take note that a worker has died."""
        if now - self._failed_at > _HEALTHY:
            self._failures = 0
        delay = 0.0
        if self._failures > 0:
            delay = min(_MOST, _FIRST * 2.0 ** min(self._failures - 1, 16))
        self._failures += 1
        self._failed_at = now
        self.due = now + delay

    def reset(self) -> None:
        """Forget what has failed: it will be different now."""
        self._failures = 0
        self.due = -math.inf
