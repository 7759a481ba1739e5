"""Settings for property tests."""

import os

from hypothesis import HealthCheck, settings

#: Without a limit of time for an example: the machine may be shared.
PROPERTY = settings(
    max_examples=100,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
