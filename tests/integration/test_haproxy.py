"""Behind a real HAProxy, instances restart one after the other, and no request fails."""

from __future__ import annotations

import shutil
import socket
from contextlib import ExitStack

import pytest

from support.processes import eventually, write_app
from support.proxies import APP, Clients, Instance, Program, connect_to, free_port, wait_for_all

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(HAPROXY is None, reason="needs HAProxy: apt-get install haproxy")

INSTANCES = 3
# No request is repeated, so that each one that fails is seen.
CONFIG = """
global
    stats socket {directory}/stats.sock level admin
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout check 2s
    retries 0
    http-reuse always
frontend site
    bind 127.0.0.1:{port}
    default_backend instances
backend instances
    balance roundrobin
    option httpchk
    http-check send meth GET uri /ready ver HTTP/1.1 hdr Host a
    default-server check inter 100ms rise 1 fall 1
{servers}
"""


@pytest.fixture
def behind_haproxy(tmp_path):
    """Start instances with these options, and an HAProxy that has found all of them."""
    with ExitStack() as stack:

        def start(*options):
            write_app(tmp_path, APP)
            instances = []
            for number in range(INSTANCES):
                port = free_port()
                own = ("--port", str(port), "--health", "/ready", *options)
                instances.append(Instance(f"s{number}", tmp_path, own, port=port))
                stack.callback(instances[-1].end)
            wait_for_all(instances)  # HAProxy takes a server for UP until a check has failed
            port = free_port()
            servers = "\n".join(f"    server {one.name} {one.address}" for one in instances)
            config = tmp_path / "haproxy.cfg"
            config.write_text(CONFIG.format(directory=tmp_path, port=port, servers=servers))
            proxy = Program([HAPROXY, "-db", "-f", config], tmp_path / "haproxy.log")
            stack.callback(proxy.end)
            eventually(lambda: all_are_up(tmp_path), "HAProxy to find all instances")
            return instances, port

        yield start


def states(directory):
    """Return the state of each instance for HAProxy: UP, DOWN, ..."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(directory / "stats.sock"))
        except OSError:
            return []
        asking.sendall(b"show stat\n")
        with asking.makefile() as lines:
            rows = [line.split(",") for line in lines]
    return [row[17] for row in rows if row[0] == "instances" and row[1] != "BACKEND"]


def all_are_up(directory):
    return len(found := states(directory)) == INSTANCES and set(found) == {"UP"}


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_a_rolling_restart_without_retries_fails_no_request(behind_haproxy, tmp_path, workers):
    instances, port = behind_haproxy("--drain-delay", "1", *workers)
    with Clients(lambda: connect_to(port)) as clients:
        clients.wait_for_more()
        for one in instances:
            one.restart()
            eventually(lambda: all_are_up(tmp_path), "HAProxy to find the instance again")
        clients.wait_for_more()
    clients.check()
