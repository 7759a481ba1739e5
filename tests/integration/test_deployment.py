"""The container file and the systemd units in examples/ start a server that serves."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from support.processes import PROCESS_TIMEOUT

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONTAINER = EXAMPLES / "container" / "Containerfile"
SERVICE = EXAMPLES / "systemd" / "site.service"
ANALYZE = shutil.which("systemd-analyze")


def instructions(name):
    """Return the arguments of this instruction in the last stage, for each occurrence."""
    lines = CONTAINER.read_text().replace("\\\n", " ").rpartition("\nFROM ")[2].splitlines()
    return [line.split(None, 1)[1] for line in lines if line.startswith(f"{name} ")]


def form(text):
    """The words of an instruction in the form without a shell."""
    return json.loads(text[text.index("[") :])


def test_a_container_is_healthy_until_it_stops(command, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environ = dict(word.split("=", 1) for word in instructions("ENV")[0].split())
    assert environ.pop("PICOWSGI_PORT") in instructions("EXPOSE")
    assert environ.pop("PICOWSGI_HOST") == "0.0.0.0"
    del environ["PATH"]
    environ.update(PICOWSGI_PORT=port, PICOWSGI_HOST="127.0.0.1")
    (copied,) = (text for text in instructions("COPY") if not text.startswith("--from"))
    shutil.copy(EXAMPLES / copied.split()[0], tmp_path)
    program, *arguments = form(instructions("CMD")[0])
    assert program == "picowsgi"

    running = command("-m", "picowsgi", *arguments, directory=tmp_path, environ=environ)
    assert "Guest book" in urllib3.request("GET", running.url).data.decode()

    python, *check = form(instructions("HEALTHCHECK")[0])
    assert python == "python"
    probe = {"args": [sys.executable, *check], "env": {**os.environ, **environ}}
    healthy = subprocess.run(**probe, capture_output=True, text=True, timeout=PROCESS_TIMEOUT)
    assert healthy.returncode == 0, f"expected a healthy server, got:\n{healthy.stderr}"
    assert running.stop() == 0
    ended = subprocess.run(**probe, capture_output=True, text=True, timeout=PROCESS_TIMEOUT)
    assert "refused" in ended.stderr, "expected no listener after the end"


def test_the_process_in_the_container_is_not_root():
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), f"expected numbers other than 0, got {user}"


@pytest.mark.skipif(not ANALYZE, reason="needs systemd-analyze: apt-get install systemd")
def test_systemd_finds_no_fault_in_the_units(tmp_path):
    for unit in SERVICE.parent.iterdir():
        # systemd-analyze also checks that the program exists.
        text = unit.read_text().replace("/srv/site/.venv/bin/picowsgi", sys.executable)
        (tmp_path / unit.name).write_text(text)
    units = sorted(map(str, tmp_path.iterdir()))
    assert [Path(unit).suffix for unit in units] == [".service", ".socket"]
    verified = subprocess.run(
        [ANALYZE, "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
    )
    ours = [line for line in verified.stderr.splitlines() if "site." in line]
    assert verified.returncode == 0, f"expected no complaint, got:\n{verified.stderr}"
    assert not ours, f"expected no complaint, got:\n{verified.stderr}"


def test_picowsgi_knows_the_options_in_the_unit():
    (line,) = re.findall(r"^ExecStart=\S+/picowsgi (.*)$", SERVICE.read_text(), re.MULTILINE)
    checked = subprocess.run(
        [sys.executable, "-m", "picowsgi", "--check", *shlex.split(line)],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
    )
    assert checked.returncode == 0, f"expected valid options, got:\n{checked.stderr}"


def test_the_server_starts_beside_a_kubernetes_service_of_its_name_and_warns_once(picowsgi):
    environ = {
        "PICOWSGI_SERVICE_HOST": "10.0.0.1",
        "PICOWSGI_PORT": "tcp://10.0.0.1:8000",
        "PICOWSGI_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    command = picowsgi("examples/function.py", "--workers", "2", environ=environ)
    assert command.stop() == 0
    lines = [line for line in command.log.splitlines() if "PICOWSGI_" in line]
    assert len(lines) == 1
    assert "PICOWSGI_SERVICE_HOST and similar variables are ignored" in lines[0]
