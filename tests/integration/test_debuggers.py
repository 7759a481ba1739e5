"""Debuggers: a reload waits for prompts, prompts take turns, and remote debuggers attach."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress

import pytest

from support.code_of_site import COMMANDS, save_code, write_site
from support.processes import PROCESS_TIMEOUT, ask, children, eventually, lives
from support.terminal import CTRL_C, Terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

APP = """
import os, time
VERSION = "1"

def application(environ, start_response):
    path = environ["PATH_INFO"]
    answer = VERSION
    if path.startswith("/break"):
        tag = path[6:]
        breakpoint()
        answer = tag
    elif path == "/pid":
        answer = str(os.getpid())
    elif path == "/double":
        answer = double(21)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]

def double(number):
    result = number * 2
    return str(result)
"""
PICOWSGI = ["-m", "picowsgi", "--port", "0"]
# Lines of the logs may come between the characters of a prompt, but not in the line before it.
# Since Python 3.13, breakpoint() stops at its own line instead of the next one.
NEXT_PROMPT = r"-> (?:answer = tag|breakpoint\(\))"
PROMPT = r"\(Pdb\) $"
WAITS = "a request waits for the terminal until the open debugger's prompt has ended\n"
RELOAD_WAITS = "the reload waits until the debugger's prompt has ended\n"


@pytest.fixture
def site(tmp_path):
    write_site(tmp_path, APP)
    return tmp_path


@pytest.fixture
def start(site):
    """Start a command in a terminal, and wait until it serves."""
    started = []

    def start(arguments, **environ):
        one = Terminal(arguments, site, {"PYTHONDONTWRITEBYTECODE": "1", **environ})
        started.append(one)
        eventually(lambda: answers(one.port) == "1", "the server")
        return one

    yield start
    for one in started:
        one.end()


def answers(port, path="/"):
    try:
        return ask(port, path)
    except (OSError, http.client.HTTPException):
        return None


class Request:
    """A request in a thread of its own."""

    def __init__(self, port, path):
        self.answer = None
        self._thread = threading.Thread(target=self._run, args=(port, path), daemon=True)
        self._thread.start()

    def _run(self, port, path):
        self.answer = answers(port, path)

    def wait(self):
        self._thread.join(PROCESS_TIMEOUT)
        assert not self._thread.is_alive(), "expected a response"
        return self.answer


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_reload_waits_until_the_prompt_has_ended(start, site, arguments):
    terminal = start(arguments)
    request = Request(terminal.port, "/break1")
    terminal.wait_for(PROMPT)
    save_code(site, APP, 2)
    terminal.wait_for(RELOAD_WAITS)
    length = terminal.press("p 'version', VERSION\n")
    terminal.wait_for(r"\('version', '1'\)", length)
    assert ask(terminal.port) == "1", "expected the old code until the end of the prompt"
    assert terminal.text.count(RELOAD_WAITS) == 1
    terminal.press("c\n")
    assert request.wait() == "1"
    eventually(lambda: answers(terminal.port) == "2", "the new code")
    eventually(terminal.is_as_before, "the settings of the terminal")


@pytest.mark.parametrize("workers", ["1", "3"])
def test_prompts_come_one_after_the_other(start, workers):
    terminal = start([*PICOWSGI, "--workers", workers, "--reload", "code_of_site"])
    requests = [Request(terminal.port, "/breakA")]
    terminal.wait_for(PROMPT)
    requests += [Request(terminal.port, f"/break{tag}") for tag in "BCDEF"]
    terminal.wait_for(f"(?s)(?:{WAITS}.*){{5}}")
    for _ in range(4):
        length = terminal.press("p 'tag', tag\n")
        terminal.wait_for(r"\('tag', '\w'\)", length)
        assert "('tag', 'A')" in terminal.text[length:], terminal.text
    for _ in requests[1:]:
        length = terminal.press("c\n")
        terminal.wait_for(NEXT_PROMPT, length)
    terminal.press("c\n")
    assert {one.wait() for one in requests} == set("ABCDEF")


def test_a_debugger_that_steps_keeps_its_turn(start):
    terminal = start([*PICOWSGI, "code_of_site"])
    first = Request(terminal.port, "/breakA")
    terminal.wait_for(PROMPT)
    second = Request(terminal.port, "/breakB")
    terminal.wait_for(WAITS)
    for _ in range(2):
        length = terminal.press("n\n")
        terminal.wait_for(r"\n-> ", length)
        length = terminal.press("p 'tag', tag\n")
        terminal.wait_for(r"\('tag', 'A'\)", length)
    length = terminal.press("c\n")
    terminal.wait_for(NEXT_PROMPT, length)
    assert first.wait() == "A"
    terminal.press("c\n")
    assert second.wait() == "B"


def test_the_terminal_is_restored_after_a_worker_was_killed_at_its_prompt(start):
    terminal = start(COMMANDS["picowsgi"])
    worker = int(ask(terminal.port, "/pid"))
    request = Request(terminal.port, "/break1")
    terminal.wait_for(PROMPT)
    eventually(lambda: not terminal.is_as_before(), "the settings of the prompt")
    os.kill(worker, signal.SIGKILL)
    request.wait()
    eventually(terminal.is_as_before, "the settings of the terminal")
    eventually(lambda: answers(terminal.port) == "1", "another worker")


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_ctrl_c_at_a_prompt_ends_the_server_and_restores_the_terminal(start, arguments):
    terminal = start(arguments, PICOWSGI_TIMEOUT_GRACEFUL="600")
    Request(terminal.port, "/break1")
    terminal.wait_for(PROMPT)
    eventually(lambda: not terminal.is_as_before(), "the settings of the prompt")
    terminal.press(CTRL_C)
    assert terminal.wait() == 0, terminal.text
    assert terminal.is_as_before()


def test_a_worker_whose_supervisor_was_killed_restores_the_terminal(start):
    terminal = start(COMMANDS["picowsgi"], PICOWSGI_TIMEOUT_GRACEFUL="600")
    Request(terminal.port, "/break1")
    terminal.wait_for(PROMPT)
    found = children(terminal.process.pid)
    terminal.process.kill()
    eventually(lambda: not any(map(lives, found)), "the end of the worker")


@pytest.mark.parametrize("name", ["ipdb", "pudb"])
def test_a_reload_waits_for_other_debuggers_too(start, site, name):
    pytest.importorskip(name)
    terminal = start(COMMANDS["picowsgi"], PYTHONBREAKPOINT=f"{name}.set_trace", HOME=str(site))
    Request(terminal.port, "/break1")
    terminal.wait_for({"ipdb": "ipdb>", "pudb": "PuDB"}[name])
    save_code(site, APP, 2)
    terminal.wait_for(RELOAD_WAITS)
    os.kill(terminal.process.pid, signal.SIGTERM)


class Client:
    """A client of the Debug Adapter Protocol, as editors have one."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), PROCESS_TIMEOUT)
        self._stream = self._socket.makefile("rb")
        self._number = 0

    def send(self, command, **arguments):
        self._number += 1
        text = json.dumps(
            {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        )
        self._socket.sendall(f"Content-Length: {len(text)}\r\n\r\n{text}".encode())

    def wait_for(self, kind, name):
        """Return the body of the next event or response with this name."""
        while True:
            size = 0
            while line := self._stream.readline().strip():
                size = int(line.rpartition(b":")[2])
            assert size, f"expected the {kind} {name}, got the end"
            message = json.loads(self._stream.read(size))
            if message["type"] == kind and name == message.get("event", message.get("command")):
                return message.get("body", {})

    def attach(self, path, line, **how):
        self.send("initialize", adapterID="test", clientID="test", pathFormat="path")
        self.wait_for("response", "initialize")
        self.send("attach", **{"subProcess": True, **how})
        self.wait_for("event", "initialized")
        self.send("setBreakpoints", source={"path": str(path)}, breakpoints=[{"line": line}])
        self.wait_for("response", "setBreakpoints")
        self.send("configurationDone")
        self.wait_for("response", "configurationDone")

    def check_that_it_stops(self):
        """Wait until the breakpoint is reached, look at a value, and continue."""
        thread = self.wait_for("event", "stopped")["threadId"]
        self.send("stackTrace", threadId=thread)
        frame = self.wait_for("response", "stackTrace")["stackFrames"][0]
        assert frame["name"] == "double"
        self.send("evaluate", expression="number + 1", frameId=frame["id"])
        assert self.wait_for("response", "evaluate")["result"] == "22"
        self.send("continue", threadId=thread)

    def close(self):
        self._stream.close()
        self._socket.close()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@pytest.fixture
def debugger(start, site):
    """Start the command under debugpy: `terminal, client, path, line = debugger("--reload")`."""
    pytest.importorskip("debugpy")
    clients = []

    def start_debugpy(*options):
        port = free_port()
        arguments = ["-Xfrozen_modules=off", "-m", "debugpy", "--listen", f"127.0.0.1:{port}"]
        terminal = start([*arguments, *PICOWSGI, "--debug", *options, "code_of_site"])
        line = 1 + APP.splitlines().index("    result = number * 2")
        return terminal, connect(port), site / "code_of_site.py", line

    def connect(port):
        clients.append(Client(port))
        return clients[-1]

    start_debugpy.connect = connect
    yield start_debugpy
    for one in clients:
        one.close()


def test_debugpy_stops_in_the_application(debugger):
    terminal, client, path, line = debugger()
    client.attach(path, line)
    request = Request(terminal.port, "/double")
    client.check_that_it_stops()
    assert request.wait() == "42"
    client.send("disconnect")


def test_debugpy_stops_in_each_process_that_a_reload_starts(debugger, site):
    terminal, client, path, line = debugger("--reload")
    client.attach(path, line)
    by_process = {}

    def follow():  # as an editor does; a new process waits for it
        with suppress(OSError, AssertionError, ValueError):  # the end of the test
            while found := client.wait_for("event", "debugpyAttach"):
                inner = debugger.connect(found["connect"]["port"])
                inner.attach(path, line, **found)
                by_process[found["subProcessId"]] = inner

    threading.Thread(target=follow, daemon=True).start()
    for version in (1, 2):
        eventually(lambda version=version: answers(terminal.port) == str(version), "its code")
        worker = int(ask(terminal.port, "/pid"))
        eventually(lambda worker=worker: worker in by_process, "the editor to attach")
        request = Request(terminal.port, "/double")
        by_process[worker].check_that_it_stops()
        assert request.wait() == "42"
        if version == 1:
            save_code(site, APP, 2)
