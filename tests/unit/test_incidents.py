"""The lines of the error log about requests without a full response."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from typing import Any

import pytest

from picowsgi import core
from picowsgi.config.settings import Settings
from picowsgi.threads.incidents import describe_client, log_incidents


class StubServer:
    """Stands for a server whose core has recorded incidents."""

    def __init__(self, *incidents: core.Incident) -> None:
        self._incidents = incidents

    def incidents(self) -> Any:
        return iter(self._incidents)


def incident(what: int, **more: Any) -> core.Incident:
    return core.Incident(what, 0, 0, "", "", "", "")._replace(**more)


CLOSED = "a connection is closed, because"
WRITE = "a client has read nothing for 2.5 s (--timeout-write), so its response is cut"


@pytest.mark.parametrize(
    ("one", "level", "text"),
    [
        (
            incident(core.INCIDENT_STORAGE, error=errno.ENOSPC),
            logging.ERROR,
            (
                "the body of a request cannot be stored, so the client gets a 507: "
                "No space left on device"
            ),
        ),
        (
            incident(core.INCIDENT_MEMORY, error=errno.ENOMEM),
            logging.ERROR,
            (
                "out of memory for a request, so the client gets a 503 or no response: "
                "Cannot allocate memory"
            ),
        ),
        (incident(core.INCIDENT_WRITE_TIMEOUT), logging.WARNING, WRITE),
        (
            incident(core.INCIDENT_WRITE_TIMEOUT, unsent=7),
            logging.WARNING,
            f"{WRITE}; at least 7 bytes are not sent",
        ),
        (
            incident(core.INCIDENT_STOP, unsent=1),
            logging.WARNING,
            "the server stops before a request is answered in full; at least 1 bytes are not sent",
        ),
        (
            incident(core.INCIDENT_SHORT, unsent=3),
            logging.ERROR,
            (
                "a file became shorter while the server sent it, so the response is cut; "
                "at least 3 bytes are not sent"
            ),
        ),
        (
            incident(core.INCIDENT_HEADS),
            logging.WARNING,
            (
                "the heads of incomplete requests take more than --head-memory-total, "
                "so some of these requests get a 503"
            ),
        ),
        (
            incident(core.INCIDENT_QUEUE),
            logging.WARNING,
            "no thread was free for 4 s (--timeout-queue), so some requests get a 503",
        ),
        (
            incident(core.INCIDENT_STUCK),
            logging.WARNING,
            (
                "the server stops, and every request in the application has run for twice the time "
                "of --timeout-request, so requests that wait for a thread get a 503"
            ),
        ),
        (
            incident(core.INCIDENT_ABANDONED, unsent=9),
            logging.ERROR,
            (
                "an exception came between the application and its response, so the response is "
                "cut; "
                "at least 9 bytes are not sent"
            ),
        ),
        (
            incident(core.INCIDENT_LOST, unsent=12),
            logging.ERROR,
            "12 more requests are not answered in full",
        ),
        (
            incident(core.INCIDENT_BACKLOG),
            logging.WARNING,
            "the server stops while connections wait to be accepted",
        ),
        (
            incident(core.INCIDENT_PROXY_PEER, unsent=1),
            logging.WARNING,
            (
                f"{CLOSED} its peer is not in --forwarded-allow-ips (--proxy-protocol), "
                "from a unix socket"
            ),
        ),
        (
            incident(core.INCIDENT_PROXY_MISSING, unsent=2, address="::1", port="80"),
            logging.WARNING,
            (
                f"{CLOSED} it does not begin with a PROXY header (--proxy-protocol); "
                "2 connections since the previous such line, from ::1 port 80"
            ),
        ),
        (
            incident(core.INCIDENT_PROXY_MALFORMED, unsent=1, address="::1", port="80"),
            logging.WARNING,
            f"{CLOSED} its PROXY header is malformed (--proxy-protocol), from ::1 port 80",
        ),
        (
            incident(core.INCIDENT_PROXY_LONG, unsent=1, address="::1", port="80"),
            logging.WARNING,
            (
                f"{CLOSED} its PROXY header is longer than 4096 bytes (--proxy-protocol), "
                "from ::1 port 80"
            ),
        ),
        (
            incident(core.INCIDENT_PROXY_TIMEOUT, unsent=9, address="::1", port="80"),
            logging.WARNING,
            (
                f"{CLOSED} its PROXY header has not arrived within 10 s of --timeout-head "
                "(--proxy-protocol); 9 connections since the previous such line, from ::1 port 80"
            ),
        ),
        (
            incident(0, error=errno.EIO, unsent=5),
            logging.ERROR,
            (
                "a request cannot be answered in full: Input/output error; "
                "at least 5 bytes are not sent"
            ),
        ),
    ],
)
def test_each_incident_has_its_level_and_its_text(
    caplog: pytest.LogCaptureFixture, one: core.Incident, level: int, text: str
) -> None:
    log_incidents(StubServer(one), replace(Settings(), timeout_write=2.5, timeout_queue=4.0))  # type: ignore[arg-type]
    assert [(each.levelno, each.getMessage()) for each in caplog.records] == [(level, text)]


def test_an_incident_names_the_known_parts_of_its_request_and_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ones = [
        incident(core.INCIDENT_BACKLOG, line="GET /\x1b\\ HTTP/1.1", address="::1", port="80"),
        incident(core.INCIDENT_BACKLOG, line="GET / HTTP/1.1"),
        incident(core.INCIDENT_BACKLOG, address="192.0.2.1", port="9"),
    ]
    log_incidents(StubServer(*ones), Settings())  # type: ignore[arg-type]
    what = "the server stops while connections wait to be accepted"
    assert [each.getMessage() for each in caplog.records] == [
        rf"{what}: GET /\x1b\\ HTTP/1.1, from ::1 port 80",
        f"{what}: GET / HTTP/1.1",
        f"{what}, from 192.0.2.1 port 9",
    ]


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ({"address": "192.0.2.1", "port": "9"}, "from 192.0.2.1 port 9"),
        ({}, ""),
        (
            {"address": "192.0.2.1", "port": "9", "proxy": ("::1", "80")},
            "from 192.0.2.1 port 9 through ::1 port 80",
        ),
        ({"address": "192.0.2.1", "proxy": ("::1", "80")}, "from 192.0.2.1 through ::1 port 80"),
        ({"address": "192.0.2.1", "proxy": ("", "")}, "from 192.0.2.1 through a unix socket"),
        ({"proxy": ("::1", "80")}, "from an unknown client through ::1 port 80"),
    ],
)
def test_a_client_is_named_with_its_proxy(client: dict[str, Any], expected: str) -> None:
    assert describe_client(incident(0, **client)) == expected
