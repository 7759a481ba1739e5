"""What the error log says of requests that were accepted and not answered in full.

Never speaks of what is the client's own doing: that it has gone, or sent what is no request.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.log import get_logger, printable

if TYPE_CHECKING:
    from picowsgi.config.settings import Settings


def log_incidents(server: core.CoreServer, settings: Settings) -> None:
    """Write a line for each incident that the core has."""
    for incident in server.incidents():
        if incident.what == core.INCIDENT_LOG:
            why = (
                "nobody read it" if incident.error == errno.EAGAIN else os.strerror(incident.error)
            )
            get_logger().warning("%s", describe_lost_lines(incident.unsent, why))
            continue
        if incident.what == core.INCIDENT_UNDERSCORE:
            _warn_of_dropped_header(incident)
            continue
        level, text = _describe(incident, settings)
        if incident.line:
            text += f": {printable(incident.line)}"
        if incident.address:
            text += f", from {incident.address} port {incident.port}"
        get_logger().log(level, "%s", text, extra={"request_id": incident.request_id})


#: The processes in which a dropped header has been logged: this one, or its parents.
_told_in: set[int] = set()


def _warn_of_dropped_header(incident: core.Incident) -> None:
    """Name the first header that is dropped in this process, by whichever loop."""
    if os.getpid() in _told_in:
        return
    _told_in.add(os.getpid())
    client = f" from {incident.address} port {incident.port}" if incident.address else ""
    get_logger().warning(
        "the header %s%s is dropped, as are all with an underscore in their name, because an "
        "application would take it for one with a hyphen (--underscore-fields)",
        printable(incident.line),
        client,
    )


def describe_lost_lines(count: int, why: str) -> str:
    """Return what is said of lines of the access log that were dropped."""
    return f"{count} lines were dropped because the access log was full: {why}"


def _describe(incident: core.Incident, settings: Settings) -> tuple[int, str]:
    why = os.strerror(incident.error)
    unsent = f"; at least {incident.unsent} bytes are not sent" if incident.unsent else ""
    if incident.what == core.INCIDENT_STORAGE:
        return logging.ERROR, f"the content of a request cannot be stored, so it gets a 507: {why}"
    if incident.what == core.INCIDENT_MEMORY:
        return logging.ERROR, f"out of memory for a request, so it gets a 503 or no answer: {why}"
    if incident.what == core.INCIDENT_WRITE_TIMEOUT:
        text = f"a client has taken nothing for {settings.timeout_write:g} s (--timeout-write)"
        return logging.WARNING, f"{text}, so its response is cut{unsent}"
    if incident.what == core.INCIDENT_STOP:
        text = "the server stops before a request is answered in full"
        return logging.WARNING, f"{text}{unsent}"
    if incident.what == core.INCIDENT_SHORT:
        text = "a file has become shorter while it is sent, so its response is cut"
        return logging.ERROR, f"{text}{unsent}"
    if incident.what == core.INCIDENT_HEADS:
        text = "the heads of requests that are not complete take more than --head-memory-total"
        return logging.WARNING, f"{text}, so some of these requests get a 503"
    if incident.what == core.INCIDENT_QUEUE:
        text = f"no thread was free for {settings.timeout_queue:g} s (--timeout-queue)"
        return logging.WARNING, f"{text}, so some requests get a 503"
    if incident.what == core.INCIDENT_STUCK:
        text = "no request of this process has ended in twice the time of --timeout-request"
        return logging.WARNING, f"{text}, so those that wait for a thread get a 503"
    if incident.what == core.INCIDENT_ABANDONED:
        text = "an exception came between the application and its response, which is cut"
        return logging.ERROR, f"{text}{unsent}"
    if incident.what == core.INCIDENT_LOST:
        return logging.ERROR, f"{incident.unsent} more requests are not answered in full"
    if incident.what == core.INCIDENT_BACKLOG:
        return logging.WARNING, "the server stops while connections wait to be accepted"
    return logging.ERROR, f"a request cannot be answered in full: {why}{unsent}"
