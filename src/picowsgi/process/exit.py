"""The end of a process that must not wait for its threads. Never decides when."""

from __future__ import annotations

import atexit
import logging
import os
from contextlib import suppress
from typing import NoReturn

from picowsgi.line_output import end_outputs, flush_standard_streams


def leave(status: int) -> NoReturn:
    """End the process as Python would, but without waiting for threads that go on."""
    with suppress(Exception):
        atexit._run_exitfuncs()
    logging.shutdown()
    flush_standard_streams()
    end_outputs()
    os._exit(status)
