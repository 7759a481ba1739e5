"""The hooks of metrics_app.py: what the supervisor does as the server starts and workers end."""

import os
from pathlib import Path

from prometheus_client import multiprocess


def on_start():
    """Remove the files that a server before this one has left."""
    for file in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("*.db"):
        file.unlink()


def worker_exit(pid, status):
    """Take a worker that has ended out of the live gauges, even if it was killed."""
    multiprocess.mark_process_dead(pid)
