"""The lines of the error log about requests without a full response, and about refused connections.

Never logs what a client causes itself: that it disconnects, or sends an invalid request.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from picowsgi import core
from picowsgi.log import get_logger, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from picowsgi.config.settings import Settings

#: The level and the text for each kind of incident. `_describe` fills in the fields.
_TEXTS: Mapping[int, tuple[int, str]] = {
    core.INCIDENT_STORAGE: (
        logging.ERROR,
        "the body of a request cannot be stored, so the client gets a 507: {why}",
    ),
    core.INCIDENT_MEMORY: (
        logging.ERROR,
        "out of memory for a request, so the client gets a 503 or no response: {why}",
    ),
    core.INCIDENT_WRITE_TIMEOUT: (
        logging.WARNING,
        (
            "a client has read nothing for {settings.timeout_write:g} s (--timeout-write), "
            "so its response is cut{unsent}"
        ),
    ),
    core.INCIDENT_STOP: (
        logging.WARNING,
        "the server stops before a request is answered in full{unsent}",
    ),
    core.INCIDENT_SHORT: (
        logging.ERROR,
        "a file became shorter while the server sent it, so the response is cut{unsent}",
    ),
    core.INCIDENT_HEADS: (
        logging.WARNING,
        (
            "the heads of incomplete requests take more than --head-memory-total, "
            "so some of these requests get a 503"
        ),
    ),
    core.INCIDENT_QUEUE: (
        logging.WARNING,
        (
            "no thread was free for {settings.timeout_queue:g} s (--timeout-queue), "
            "so some requests get a 503"
        ),
    ),
    core.INCIDENT_STUCK: (
        logging.WARNING,
        (
            "the server stops, and every request in the application has run for twice the time of "
            "--timeout-request, so requests that wait for a thread get a 503"
        ),
    ),
    core.INCIDENT_ABANDONED: (
        logging.ERROR,
        (
            "an exception came between the application and its response, so the response is cut"
            "{unsent}"
        ),
    ),
    core.INCIDENT_LOST: (logging.ERROR, "{count} more requests are not answered in full"),
    core.INCIDENT_BACKLOG: (
        logging.WARNING,
        "the server stops while connections wait to be accepted",
    ),
}
_CLOSED = "a connection is closed, because {} (--proxy-protocol){{others}}"
#: The texts for connections that are closed because of their PROXY header.
_PROXY_TEXTS: Mapping[int, str] = {
    core.INCIDENT_PROXY_PEER: _CLOSED.format("its peer is not in --forwarded-allow-ips"),
    core.INCIDENT_PROXY_MISSING: _CLOSED.format("it does not begin with a PROXY header"),
    core.INCIDENT_PROXY_MALFORMED: _CLOSED.format("its PROXY header is malformed"),
    core.INCIDENT_PROXY_LONG: _CLOSED.format("its PROXY header is longer than 4096 bytes"),
    core.INCIDENT_PROXY_TIMEOUT: _CLOSED.format(
        "its PROXY header has not arrived within {settings.timeout_head:g} s of --timeout-head"
    ),
}
_OTHER = logging.ERROR, "a request cannot be answered in full: {why}{unsent}"


def log_incidents(server: core.CoreServer, settings: Settings) -> None:
    """Write a line for each incident that the core has."""
    for incident in server.incidents():
        if incident.what == core.INCIDENT_LOG:
            why = (
                "no process read it"
                if incident.error == errno.EAGAIN
                else os.strerror(incident.error)
            )
            get_logger().warning("%s", describe_lost_lines(incident.unsent, why))
            continue
        if incident.what == core.INCIDENT_UNDERSCORE:
            _warn_of_dropped_header(incident)
            continue
        level, text = _describe(incident, settings)
        if incident.line:
            text += f": {printable(incident.line)}"
        client = describe_client(incident)
        if not client and incident.what in _PROXY_TEXTS:
            client = "from a unix socket"
        if client:
            text += f", {client}"
        get_logger().log(level, "%s", text, extra={"request_id": incident.request_id})


#: The processes that have logged a dropped header: this one, or its parents.
_warned_in: set[int] = set()


def _warn_of_dropped_header(incident: core.Incident) -> None:
    """Log the first header that any loop of this process drops."""
    if os.getpid() in _warned_in:
        return
    _warned_in.add(os.getpid())
    client = describe_client(incident)
    get_logger().warning(
        "the header %s%s is dropped, like all headers with an underscore in their name, because "
        "an application would take it for a header with a hyphen (--underscore-fields)",
        printable(incident.line),
        f" {client}" if client else "",
    )


def describe_client(incident: core.Incident) -> str:
    """Return the client, and the proxy that has named it: `from 192.0.2.1 port 4711`.

    The text is empty for a client of a unix socket.
    """
    if incident.proxy is None and not incident.address:
        return ""
    text = f"from {incident.address or 'an unknown client'}"
    if incident.port:
        text += f" port {incident.port}"
    if incident.proxy is not None:
        address, port = incident.proxy
        text += f" through {address} port {port}" if address else " through a unix socket"
    return text


def describe_lost_lines(count: int, why: str) -> str:
    """Return the message about dropped lines of the access log."""
    return f"{count} lines were dropped because the access log was full: {why}"


def _describe(incident: core.Incident, settings: Settings) -> tuple[int, str]:
    """Return the level and the text of the line."""
    if incident.what in _PROXY_TEXTS:
        count = incident.unsent
        others = f"; {count} connections since the previous such line" if count > 1 else ""
        text = _PROXY_TEXTS[incident.what].format(settings=settings, others=others)
        return logging.WARNING, text
    level, text = _TEXTS.get(incident.what, _OTHER)
    return level, text.format(
        why=os.strerror(incident.error),
        unsent=f"; at least {incident.unsent} bytes are not sent" if incident.unsent else "",
        count=incident.unsent,
        settings=settings,
    )
