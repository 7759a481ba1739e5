"""The container of examples/kubernetes/ runs as its manifest says: user, files, limits, probes."""

from __future__ import annotations

import errno
import json
import math
import re
import time
from contextlib import ExitStack

import pytest

from support.containers import Container, Limits, make_image, why_not
from support.manifests import (
    CONTAINER,
    EXAMPLES,
    POD,
    PORTS,
    PROBES,
    SERVICE,
    arguments,
    cpus,
    settings,
    size,
)
from support.processes import PROCESS_TIMEOUT, children, eventually

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "can run containers"),
    pytest.mark.unsanitized,  # the image has its own copy of the core
]

APP = """
import errno, json, os, time
from pathlib import Path

def write_to(folder):
    try:
        (Path(folder) / "written").write_text("x")
    except OSError as error:
        return error.errno
    return 0

def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = b""
    if path == "/facts":
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        facts = {
            "uid": os.getuid(),
            "gid": os.getgid(),
            "groups": os.getgroups(),
            "pid": os.getpid(),
            "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")],
            "no new privileges": int(status["NoNewPrivs"]),
            "written": {folder: write_to(folder) for folder in ("/", "/srv/site", "/etc", "/tmp")},
        }
        body = json.dumps(facts).encode()
    elif path == "/hold":
        Path("/tmp/held").touch()
        while not Path("/tmp/release").exists():
            time.sleep(0.005)
    elif environ["REQUEST_METHOD"] == "POST":
        size = 0
        while piece := environ["wsgi.input"].read(1 << 16):
            size += len(piece)
        body = str(size).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def service_variables(name, port):
    """Return the variables that every container gets for a Service."""
    prefix = name.upper().replace("-", "_")
    address = "10.96.0.17"
    return {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(port),
        f"{prefix}_SERVICE_PORT_HTTP": str(port),
        f"{prefix}_PORT": f"tcp://{address}:{port}",
        f"{prefix}_PORT_{port}_TCP": f"tcp://{address}:{port}",
        f"{prefix}_PORT_{port}_TCP_PROTO": "tcp",
        f"{prefix}_PORT_{port}_TCP_PORT": str(port),
        f"{prefix}_PORT_{port}_TCP_ADDR": address,
    }


@pytest.fixture
def run(tmp_path):
    """Run the container of the Deployment, with this application: `run(APP)`."""
    with ExitStack() as stack:

        def start(text, limits=None):
            module = tmp_path / f"{arguments()[-1].partition(':')[0]}.py"
            module.write_text(text)
            make_image(tmp_path / "image", module)
            volume = tmp_path / "temporary"
            volume.mkdir()
            volume.chmod(0o777)  # as an emptyDir
            (port,) = SERVICE["spec"]["ports"]
            environ = {"PATH": "/opt/site/bin:/usr/bin:/bin", "HOSTNAME": "site-1", "HOME": "/"}
            for name in ("kubernetes", SERVICE["metadata"]["name"], "picowsgi"):
                environ |= service_variables(name, port["port"])
            context = POD["spec"]["securityContext"]
            (mount,) = CONTAINER["volumeMounts"]
            one = Container(
                tmp_path,
                [*CONTAINER["command"], *arguments()],
                environ=environ,
                user=context["runAsUser"],
                group=context["runAsGroup"],
                volumes={mount["mountPath"]: volume},
                limits=limits,
            )
            stack.callback(one.end)
            eventually(
                lambda: probe(one, "startup") == 200, f"the startup probe to pass\n{one.log}"
            )
            return one

        yield start


def probe(container, name):
    """Return the status for a probe, or None without a response in its time."""
    asked = PROBES[name]["httpGet"]
    assert container.process.poll() is None, container.log
    try:
        timeout = PROBES[name].get("timeoutSeconds", 1)
        return container.ask(PORTS[asked["port"]], asked["path"], timeout=timeout)[0]
    except OSError:
        return None


def ask(container, path, body=None):
    return container.ask(PORTS["http"], path, body)


def test_the_example_application_runs_in_the_container(run):
    container = run((EXAMPLES / "function.py").read_text())
    assert ask(container, "/?name=Ada") == (200, b"Hello, Ada!\n")
    assert probe(container, "readiness") == 200
    assert probe(container, "liveness") == 200
    status, page = container.ask(PORTS["metrics"], "/metrics")
    assert status == 200
    assert re.search(rb"^picowsgi_queue_length 0$", page, re.MULTILINE)


def test_the_container_has_no_privileges_and_can_write_to_its_volume_only(run):
    container = run(APP)
    facts = json.loads(ask(container, "/facts")[1])
    context = POD["spec"]["securityContext"]
    own = CONTAINER["securityContext"]
    assert (facts["uid"], facts["gid"]) == (context["runAsUser"], context["runAsGroup"])
    assert facts["groups"] == []
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert facts["capabilities"] == [0, 0, 0]
    assert own["allowPrivilegeEscalation"] is False
    assert facts["no new privileges"] == 1
    assert own["readOnlyRootFilesystem"] is True
    assert facts["written"] == {
        "/": errno.EROFS,
        "/srv/site": errno.EROFS,
        "/etc": errno.EROFS,
        "/tmp": 0,
    }


def test_variables_of_a_service_named_picowsgi_are_ignored_with_one_line(run):
    container = run(APP)
    lines = [line for line in container.log.splitlines() if "PICOWSGI_" in line]
    assert len(lines) == 1, container.log
    assert "similar variables are ignored" in json.loads(lines[0])["message"]
    for line in container.log.splitlines():
        json.loads(line)


def test_after_sigterm_the_container_drains_within_the_grace_period(run, tmp_path):
    container = run(APP)
    given = settings()
    held = container.connect(PORTS["http"])
    held.request("GET", "/hold")
    eventually((tmp_path / "temporary/held").exists, "the request to run")
    began = time.monotonic()
    container.terminate()
    eventually(lambda: probe(container, "readiness") == 503, "the readiness probe to fail")
    assert probe(container, "liveness") == 200
    assert ask(container, "/") == (200, b""), "expected the pod to serve while it drains"
    assert time.monotonic() - began < given.drain_delay, "expected that during the delay"

    def is_refused():
        try:
            container.connect(PORTS["http"]).close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(is_refused, "the end of the delay")
    assert time.monotonic() - began >= given.drain_delay
    (tmp_path / "temporary/release").touch()
    response = held.getresponse()
    assert (response.status, response.read()) == (200, b"")
    held.close()
    assert container.process.wait(PROCESS_TIMEOUT) == 0, container.log
    assert time.monotonic() - began < POD["spec"]["terminationGracePeriodSeconds"]


def test_the_workers_follow_the_limit_of_cpus_and_uploads_fit_into_that_of_memory(run):
    asked = CONTAINER["resources"]["limits"]
    try:
        limits = Limits(cpus(asked["cpu"]), size(asked["memory"]))
    except OSError as error:
        pytest.skip(f"needs control groups that it can change: {error}")
    try:
        container = run(APP, limits)
        count = math.ceil(cpus(asked["cpu"]))
        started = children(container.first)
        assert len(started) == (count if count > 1 else 0), "expected a worker for each CPU"
        most = settings().max_body_size
        for _ in range(4):
            assert ask(container, "/", b"x" * most) == (200, str(most).encode())
        assert ask(container, "/", b"x" * (most + 1))[0] == 413
        assert probe(container, "liveness") == 200, container.log
        container.end()
    finally:
        limits.end()
