"""Chooses the tests that are most likely to notice a mutant of a file. Never runs a test.

The tables are written by hand. `known` adds the tests that noticed mutants before. A file without
an entry has the general tests, and those with a name like its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# C tests that take longer than a second come last. One of them is only for the parsers.
_SLOW = ("test_endings", "test_lifetime", "test_memory", "threads/stress", "test_corpus")
_PARSERS = {
    *("head", "host", "request_line", "fields", "index", "chunked"),
    *("parser", "parser_plain", "parser_sse42"),
}

# C file -> the C tests, and the files and folders of pytest below tests/.
C_TESTS: dict[str, tuple[str, str]] = {
    "accept": (
        "turns clock server drain memory",
        "e2e/test_connection_limit.py unit/test_sockets.py",
    ),
    "access": ("access_lines access", "e2e/test_access_log.py"),
    "access_format": ("access access_lines", "e2e/test_access_log.py"),
    "address": ("address forwarded conn_proxy", "e2e/test_forwarded.py"),
    "alloc": ("buffer memory", "e2e/test_server_api.py"),
    "batch": ("batching response output", "e2e/test_streaming.py"),
    "buffer": ("buffer conn_keep memory", "e2e/test_head_memory.py"),
    "build": ("", "unit/test_cli.py"),
    "cache": ("cache", "e2e/test_heads_again.py"),
    "chunked": ("chunked content", "wire"),
    "client": ("incident conn_proxy", "e2e/test_incident_clients.py e2e/test_proxy_protocol.py"),
    "clock": ("system timer response access", "e2e/test_timeouts.py"),
    "conn": (
        "exchange server edges clock history conn_keep",
        "wire/test_pipelining.py e2e/test_timeouts.py",
    ),
    "conn_balance": ("conn_balance turns", "e2e/test_loops.py"),
    "conn_close": (
        "endings clock drain lifetime",
        "e2e/test_timeout_queue.py e2e/test_late_writes.py",
    ),
    "conn_keep": ("conn_keep buffer", "e2e/test_head_memory.py"),
    "conn_pool": ("turns server lifetime", "e2e/test_connection_limit.py"),
    "conn_proxy": ("conn_proxy", "e2e/test_proxy_protocol.py"),
    "conn_transfer": (
        "conn_transfer edges descriptors drain",
        "e2e/test_loops.py e2e/test_draining.py",
    ),
    "conn_wait": (
        "ready clock endings drain server",
        "e2e/test_timeouts.py e2e/test_timeout_queue.py",
    ),
    "content": ("content", "e2e/test_uploads.py"),
    "cut": ("cut", "integration/test_reload_streams.py"),
    "detach": ("detach", "e2e/test_detach.py integration/test_websocket.py"),
    "environ": ("environ", "e2e/test_pep3333.py"),
    "error_response": (
        "error_response response exchange endings",
        "wire/test_errors.py e2e/test_health.py",
    ),
    "exchange": ("exchange detach", "e2e/test_pep3333.py e2e/test_detach.py"),
    "exporter": ("", "e2e/test_metrics.py e2e/test_metrics_processes.py"),
    "fields": ("fields head", "wire"),
    "forwarded": ("forwarded head environ", "e2e/test_forwarded.py wire"),
    "forwarded_value": ("forwarded", "e2e/test_forwarded.py wire"),
    "framing": ("response", "e2e/test_pep3333.py wire"),
    "gauges": ("gauges", "e2e/test_metrics.py"),
    "head": ("head fields environ", "wire"),
    "health": ("health batching fairness", "e2e/test_health.py"),
    "host": ("head", "wire"),
    "incident": ("incident holding clock server", "e2e/test_incidents.py"),
    "index": ("hash environ", "unit/test_environ.py"),
    "lines": ("lines", "e2e/test_heads_again.py"),
    "listener": ("drain descriptors turns server", "e2e/test_draining.py unit/test_sockets.py"),
    "loop": (
        "server token clock fairness exchange drain",
        "e2e/test_timeout_queue.py e2e/test_draining.py",
    ),
    "meter": ("meter gauges", "e2e/test_metrics.py e2e/test_metrics_processes.py"),
    "metrics_page": ("meter", "e2e/test_metrics.py"),
    "next": ("settle server exchange", "e2e/test_server_api.py"),
    "output": ("output holding response fairness", "e2e/test_slow_clients.py e2e/test_files.py"),
    "parser": ("head", "wire"),
    "poll_epoll": ("poll", "e2e/test_poller.py"),
    "poll_kqueue": ("poll", ""),
    "poll_poll": ("poll", "e2e/test_poller.py"),
    "poller": ("poll", "e2e/test_poller.py"),
    "process": ("meter", "e2e/test_metrics.py"),
    "proxy_protocol": ("proxy_protocol conn_proxy", "e2e/test_proxy_protocol.py"),
    "queue": ("fairness token server exchange", "e2e/test_timeout_queue.py e2e/test_fairness.py"),
    "recv": ("exchange endings", "e2e/test_disconnect.py"),
    "request": ("server history exchange", "e2e/test_pep3333.py e2e/test_uploads.py"),
    "request_id": ("request_id", "e2e/test_request_id.py"),
    "request_line": ("head lines", "wire"),
    "response": (
        "response holding batching output",
        "e2e/test_streaming.py e2e/test_slow_clients.py",
    ),
    "server": (
        "server descriptors clock lifetime",
        "e2e/test_timeout_queue.py e2e/test_server_api.py",
    ),
    "store": ("content holding output", "e2e/test_spool.py e2e/test_uploads.py"),
    "system": (
        "system descriptors server access endings",
        "e2e/test_files.py unit/test_restart.py",
    ),
    "text": ("access environ", "e2e/test_access_log.py"),
    "thread": ("token server lifetime", "e2e/test_threads.py"),
    "timer": ("timer", "e2e/test_timeouts.py"),
    "token": ("token server exchange drain", "e2e/test_threads.py e2e/test_timeout_queue.py"),
    "trust": ("forwarded", "e2e/test_forwarded.py"),
    "watcher": ("token settle batching server", "e2e/test_threads.py e2e/test_request_timeout.py"),
    "yield_rule": ("yield_rule", "e2e/test_fairness.py"),
}
# Files that take few seconds. They run after the others, for every C file.
_C_GENERAL = """
    e2e/test_pep3333.py e2e/test_health.py e2e/test_server_api.py wire/test_errors.py
    wire/test_expect.py wire/test_client.py e2e/test_fairness.py
    e2e/test_request_timeout.py e2e/test_access_log.py e2e/test_heads_again.py e2e/test_endings.py
    e2e/test_threads.py e2e/test_files.py e2e/test_loops.py e2e/test_timeout_queue.py
    wire/test_pipelining.py e2e/test_uploads.py e2e/test_errors.py
"""

# Python file -> its unit tests, which run first, and other files and folders below tests/.
# A unit test with the name of the file needs no entry.
PYTHON_TESTS: dict[str, tuple[str, str]] = {
    "access_log": ("", "e2e/test_access_log.py"),
    "address": ("top_address", "e2e/test_top.py"),
    "apps": ("", "integration/test_django_runserver.py"),
    "arguments": ("cli", ""),
    "browser": ("middleware", "e2e/test_debug.py"),
    "cgi": ("", "e2e/test_cgi.py"),
    "__init__": ("core", "e2e/test_server_api.py e2e/test_pep3333.py e2e/test_incidents.py"),
    "control": ("supervisor", "e2e/test_processes.py e2e/test_signals.py e2e/test_reload.py"),
    "detach": ("", "e2e/test_detach.py integration/test_websocket.py"),
    "development": (
        "",
        (
            "integration/test_flask_picowsgi.py integration/test_django_runserver.py "
            "e2e/test_reload.py"
        ),
    ),
    "environ": ("", "e2e/test_pep3333.py"),
    "error": ("", "e2e/test_debug.py e2e/test_errors.py"),
    "errors": ("cli", "e2e/test_errors.py"),
    "display": ("", "e2e/test_top_display.py"),
    "draw": ("top_draw", "e2e/test_top_display.py"),
    "ending": ("service", "e2e/test_processes.py e2e/test_stopping.py"),
    "fetch": ("top_fetch", "e2e/test_top.py"),
    "failure": ("importer", ""),
    "files": ("reload", "e2e/test_reload.py"),
    "flask": ("", "integration/test_flask_picowsgi.py"),
    "frameworks": ("peers", ""),
    "fork_guard": ("", "e2e/test_fork.py e2e/test_processes.py"),
    "gateway": ("", "e2e/test_pep3333.py e2e/test_errors.py e2e/test_simple_server.py"),
    "generation": ("reloader", "integration/test_live_reload.py"),
    "granian": ("peers", ""),
    "gunicorn": ("peers", "integration/test_gunicorn.py"),
    "handler": ("", "e2e/test_simple_server_requests.py e2e/test_simple_server.py"),
    "import_error": ("", "e2e/test_reload.py"),
    "incidents": ("", "e2e/test_incidents.py"),
    "input": ("", "e2e/test_uploads.py e2e/test_spool.py"),
    "key_order": ("environ", "e2e/test_pep3333.py"),
    "live": ("", "e2e/test_top_display.py"),
    "load": ("config cli", ""),
    "log": ("log_failures", ""),
    "log_config": ("log log_failures cli", ""),
    "log_format": ("access_log config", "tools/test_docs.py e2e/test_access_log.py"),
    "loop": ("loop_threads", "e2e/test_threads.py e2e/test_request_timeout.py e2e/test_loops.py"),
    "main": (
        "cli arguments",
        "e2e/test_mount.py integration/test_examples.py e2e/test_terminal.py",
    ),
    "members": ("workers", "e2e/test_signals.py e2e/test_stopping.py"),
    "metrics": ("settings", "e2e/test_metrics.py e2e/test_metrics_processes.py"),
    "middleware": ("", "e2e/test_static.py e2e/test_debug.py"),
    "modules": ("reload reloader", "e2e/test_reload.py"),
    "monitor": ("top_monitor top_fetch", "e2e/test_top_display.py"),
    "monkey": ("", "integration/test_monkey.py"),
    "mount": ("cli", "e2e/test_mount.py"),
    "once": ("", "e2e/test_top.py"),
    "option": ("config settings arguments cli", ""),
    "page": ("top_page live_reload", "e2e/test_top.py"),
    "paste": ("", "integration/test_pastedeploy.py integration/test_pserve.py"),
    "paste_deploy": ("", "integration/test_pastedeploy.py"),
    "percentiles": ("top_percentiles", ""),
    "pidfile": ("", "e2e/test_processes.py"),
    "pool": ("", "e2e/test_server_api.py e2e/test_stopping.py e2e/test_signals.py"),
    "poller": ("core", "e2e/test_poller.py"),
    "privileges": ("", "integration/test_deployment.py"),
    "processes": ("pidfile gunicorn", "integration/test_gunicorn.py"),
    "pytest_plugin": ("", "integration/test_pytest_plugin.py"),
    "reloader": ("reload", "e2e/test_reload.py"),
    "request_timeout": ("", "e2e/test_request_timeout.py e2e/test_simple_server.py"),
    "respawn": ("workers", "e2e/test_processes.py"),
    "response": ("", "e2e/test_pep3333.py e2e/test_files.py"),
    "response_head": ("response_head_reuse", "e2e/test_pep3333.py"),
    "restart": ("", "e2e/test_processes.py e2e/test_reload.py e2e/test_signals.py"),
    "row": ("peers", ""),
    "runserver": ("", "integration/test_django_runserver.py"),
    "server": (
        "core",
        "e2e/test_server_api.py e2e/test_simple_server.py integration/test_django_runserver.py",
    ),
    "run": ("service cli", "e2e/test_signals.py e2e/test_stopping.py e2e/test_processes.py"),
    "server_section": ("", "integration/test_pastedeploy.py"),
    "service": ("", "e2e/test_signals.py e2e/test_stopping.py e2e/test_processes.py"),
    "settings": ("config arguments", ""),
    "signals": ("", "e2e/test_signals.py e2e/test_stopping.py"),
    "snapshot": ("reload", "e2e/test_reload.py"),
    "sockets": ("sockets_unusual", "e2e/test_processes.py e2e/test_signals.py"),
    "sources": ("env_file cli", "e2e/test_starting.py integration/test_pastedeploy.py"),
    "spawner": ("", "e2e/test_processes.py e2e/test_signals.py"),
    "spec": ("importer", ""),
    "status_pipe": ("members", "e2e/test_processes.py"),
    "stepping": ("", "e2e/test_simple_server.py integration/test_gunicorn.py"),
    "supervisor": ("", "e2e/test_processes.py e2e/test_signals.py e2e/test_reload.py"),
    "systemd": ("", "integration/test_systemd.py"),
    "template": ("demo", "e2e/test_debug.py"),
    "terminal": ("", "e2e/test_terminal.py e2e/test_signals.py"),
    "testing": ("", "integration/test_django.py"),
    "toml": ("config", ""),
    "top": ("arguments", "e2e/test_top.py"),
    "units": ("top_draw", ""),
    "uvicorn": ("peers", ""),
    "uwsgi": ("peers", ""),
    "upgrade": ("", "e2e/test_processes.py e2e/test_signals.py"),
    "values": ("sockets config middleware settings", "e2e/test_mount.py"),
    "view": ("top_view top_monitor", "e2e/test_top.py"),
    "waitress": ("peers", ""),
    "watchdog": ("workers", "e2e/test_processes.py"),
    "watcher": ("reload reloader", "e2e/test_reload.py"),
    "workers": ("", "e2e/test_processes.py"),
}
_PYTHON_GENERAL = """
    unit/test_config.py unit/test_loop.py unit/test_log.py unit/test_workers.py
    unit/test_importer.py unit/test_middleware.py unit/test_sockets.py unit/test_descriptors.py
    unit/test_response_head.py
    e2e/test_health.py e2e/test_server_api.py e2e/test_threads.py e2e/test_pep3333.py
    e2e/test_files.py e2e/test_errors.py unit/test_cli.py
"""
# The tests in these folders test tools and documents, not the server.
_UNRELATED = ("bench", "stress", "tools")


Ordered = tuple[list[str], list[str]]  # the tests of the file, and the others


def c_tests(root: Path, file: str) -> Ordered:
    """Return the names of the C tests."""
    everything = sorted(path.stem for path in (root / "tests" / "c").glob("test_*.c"))
    if (root / "tests" / "c" / "threads" / "stress.c").exists():
        everything.append("threads/stress")
    stem = Path(file).stem
    first = [f"test_{name}" for name in C_TESTS.get(stem, ("", ""))[0].split()]
    first = [name for name in first if name in everything]
    parsers = [] if stem in _PARSERS or not stem else ["test_head"]
    rest = [name for name in everything if name not in {*first, *_SLOW, *parsers}]
    return first, [*rest, *(name for name in _SLOW if name in everything and name not in first)]


def unit_tests(root: Path, file: str) -> list[str]:
    """Return the unit tests of a Python file, which take seconds."""
    stem = Path(file).stem
    names = [stem, *PYTHON_TESTS.get(stem, ("", ""))[0].split()]
    return _existing(root, (f"unit/test_{name}.py" for name in names))


def python_tests(root: Path, file: str) -> Ordered:
    """Return the files and folders for pytest."""
    stem = Path(file).stem
    if file.endswith(".c"):
        first, rest = C_TESTS.get(stem, ("", ""))[1].split(), _C_GENERAL.split()
    else:
        others = PYTHON_TESTS.get(stem, ("", ""))[1].split()
        first = [*others, f"e2e/test_{stem}.py", *_importing(root, file)]
        rest = _PYTHON_GENERAL.split()
    units = [] if file.endswith(".c") else unit_tests(root, file)
    first = list(dict.fromkeys([*units, *_existing(root, first)]))
    return first, [name for name in _existing(root, rest) if name not in first]


def _existing(root: Path, names: Iterable[str]) -> list[str]:
    return [f"tests/{name}" for name in names if (root / "tests" / name).exists()]


def _importing(root: Path, file: str) -> list[str]:
    """Return the unit tests that import a module."""
    module = re.escape(file.removeprefix("src/").removesuffix(".py").replace("/", "."))
    imports = re.compile(rf"^\s*(from|import) {module}\b", re.MULTILINE)
    tests = sorted((root / "tests" / "unit").glob("test_*.py"))
    return [f"unit/{path.name}" for path in tests if imports.search(path.read_text())]


def all_python_tests(root: Path) -> list[str]:
    """Return all test files of the server."""
    return [
        str(path.relative_to(root))
        for path in sorted((root / "tests").rglob("test_*.py"))
        if path.parent.name not in _UNRELATED
    ]
