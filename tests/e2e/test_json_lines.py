"""With --log-format json every line of picowsgi is a JSON object."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from support import INTERRUPTS, RawClient, outer_environ

APP = """
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/error":
        raise RuntimeError("as the test wants it")
    if environ["PATH_INFO"] == "/slow":
        while True:
            time.sleep(0.01)
    print("a complaint", file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "broken.py").write_text("raise ImportError('as the test wants it')\n")
    return tmp_path


def get(command, target):
    with RawClient(command.port) as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return client.read_response().status


@INTERRUPTS
@pytest.mark.parametrize("options", [(), ("--workers=2",)], ids=["one process", "two workers"])
def test_every_line_from_start_to_end_is_json(picowsgi, directory, options):
    command = picowsgi(
        "--log-format=json",
        "--log-level=debug",
        "--access-log",
        "--timeout-request=0.2",
        *options,
        "app:app",
        directory=directory,
        stdout=True,
    )
    assert get(command, "/") == 200
    assert get(command, "/error") == 500
    assert get(command, "/slow") == 500
    assert command.stop() == 0
    entries = [json.loads(line) for line in command.log.splitlines()]
    banner = entries[0]
    assert banner["level"] == "info"
    assert f"serving app:app on {command.url}" in banner["message"]
    assert banner["pid"] == command.process.pid
    assert {entry.get("target") for entry in entries} >= {"/", "/error", "/slow"}
    assert [entry["message"] for entry in entries if "complaint" in entry.get("message", "")] == [
        "a complaint"
    ]
    stacks = [entry for entry in entries if "stack" in entry]
    assert all(entry["message"].endswith("is interrupted at:") for entry in stacks), stacks
    # On a busy machine another request may take longer than the limit, too.
    assert any("time.sleep(0.01)" in entry["stack"] for entry in stacks), stacks
    tracebacks = [entry["traceback"] for entry in entries if "traceback" in entry]
    assert any("as the test wants it" in text for text in tracebacks)


@INTERRUPTS
def test_in_text_a_stack_is_indented_lines(picowsgi, directory):
    command = picowsgi("--timeout-request=0.2", "app:app", directory=directory)
    assert get(command, "/slow") == 500
    command.wait_for_log("error in the application")
    assert command.stop() == 0
    lines = command.log.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.endswith("is interrupted at:")]
    stack = lines[at + 1 :][:20]
    assert "        time.sleep(0.01)" in [line[-24:] for line in stack]
    assert all(line.startswith("    ") for line in stack[:4])


@pytest.mark.parametrize(
    ("arguments", "environ", "status", "message"),
    [
        (["--log-format", "json", "--port", "x", "app:app"], {}, 2, "--port: expected"),
        (["--port=x", "--log-format=json", "app:app"], {}, 2, "--port: expected"),
        (["--unknown", "app:app"], {"PICOWSGI_LOG_FORMAT": "json"}, 2, "--unknown"),
        (["--log-format=json", "broken:app"], {}, 1, "broken"),
        (["--log-format=json", "--bind=fd://999", "app:app"], {}, 1, "999"),
        (["--log-format=json", "--chdir=/none", "app:app"], {}, 2, "/none"),
    ],
)
def test_an_error_that_ends_a_start_is_one_json_object(
    directory, arguments, environ, status, message
):
    done = subprocess.run(
        [sys.executable, "-m", "picowsgi", *arguments],
        cwd=directory,
        env={**outer_environ(), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert entry["level"] == "error"
    assert message in entry["message"]
    assert ("traceback" in entry) == ("broken:app" in arguments)
    assert os.linesep not in entry["message"]
