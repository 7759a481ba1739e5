"""Which tests are most likely to notice a mutant of a file. Never runs one.

The tables name tests by hand; `known` adds what it has learned. A file that no table names has the
tests whose names resemble its own, and the general ones.
"""

from __future__ import annotations

import re
from pathlib import Path

# C tests that take longer than a second come last; one of them only for the parsers that it tests.
_SLOW = ("test_endings", "test_lifetime", "test_memory", "threads/stress", "test_corpus")
_PARSERS = {
    *("head", "host", "request_line", "fields", "index", "chunked"),
    *("parser", "parser_plain", "parser_sse42"),
}

# C file -> C tests first, then files and folders of pytest, in tests/.
C_TESTS: dict[str, tuple[str, str]] = {
    "accept": (
        "turns clock server drain memory",
        "e2e/test_connection_limit.py unit/test_sockets.py",
    ),
    "access": ("access_lines access", "e2e/test_access_log.py"),
    "alloc": ("buffer memory", "e2e/test_server_api.py"),
    "batch": ("batching response output", "e2e/test_streaming.py"),
    "buffer": ("buffer conn_keep memory", "e2e/test_head_memory.py"),
    "build": ("", "unit/test_cli.py"),
    "cache": ("cache", "e2e/test_heads_again.py"),
    "chunked": ("chunked content", "wire"),
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
    "conn_transfer": (
        "conn_transfer edges descriptors drain",
        "e2e/test_loops.py e2e/test_draining.py",
    ),
    "conn_wait": (
        "ready clock endings drain server",
        "e2e/test_timeouts.py e2e/test_timeout_queue.py",
    ),
    "content": ("content", "e2e/test_uploads.py"),
    "environ": ("environ", "e2e/test_pep3333.py"),
    "error_response": ("response exchange endings", "wire/test_errors.py e2e/test_health.py"),
    "exchange": ("exchange", "e2e/test_pep3333.py"),
    "fields": ("fields head", "wire"),
    "framing": ("response", "e2e/test_pep3333.py wire"),
    "head": ("head fields environ", "wire"),
    "health": ("health batching fairness", "e2e/test_health.py"),
    "host": ("head", "wire"),
    "incident": ("incident holding clock server", "e2e/test_incidents.py"),
    "index": ("hash environ", "unit/test_head.py"),
    "lines": ("lines", "e2e/test_heads_again.py"),
    "listener": ("drain descriptors turns server", "e2e/test_draining.py unit/test_sockets.py"),
    "loop": (
        "server token clock fairness exchange drain",
        "e2e/test_timeout_queue.py e2e/test_draining.py",
    ),
    "next": ("settle server exchange", "e2e/test_server_api.py"),
    "output": ("output holding response fairness", "e2e/test_slow_clients.py e2e/test_files.py"),
    "parser": ("head", "wire"),
    "poll_epoll": ("poll", "e2e/test_poller.py"),
    "poll_kqueue": ("poll", ""),
    "poll_poll": ("poll", "e2e/test_poller.py"),
    "poller": ("poll", "e2e/test_poller.py"),
    "queue": ("fairness token server exchange", "e2e/test_timeout_queue.py e2e/test_fairness.py"),
    "recv": ("exchange endings", "e2e/test_disconnect.py"),
    "request": ("server history exchange", "e2e/test_pep3333.py e2e/test_uploads.py"),
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
        "e2e/test_files.py unit/test_process_files.py",
    ),
    "text": ("access environ", "e2e/test_access_log.py"),
    "thread": ("token server lifetime", "e2e/test_threads.py"),
    "timer": ("timer", "e2e/test_timeouts.py"),
    "token": ("token server exchange drain", "e2e/test_threads.py e2e/test_timeout_queue.py"),
    "watcher": ("token settle batching server", "e2e/test_threads.py e2e/test_request_timeout.py"),
    "yield_rule": ("yield_rule", "e2e/test_fairness.py"),
}
# After those, for every C file: files that take few seconds.
_C_GENERAL = """
    e2e/test_pep3333.py e2e/test_health.py e2e/test_server_api.py wire/test_errors.py
    wire/test_expect.py wire/test_client.py e2e/test_fairness.py
    e2e/test_request_timeout.py e2e/test_access_log.py e2e/test_heads_again.py e2e/test_endings.py
    e2e/test_threads.py e2e/test_files.py e2e/test_loops.py e2e/test_timeout_queue.py
    wire/test_pipelining.py e2e/test_uploads.py e2e/test_errors.py
"""

# Python file -> files and folders of pytest, in tests/.
PYTHON_TESTS: dict[str, str] = {
    "access_log": "e2e/test_access_log.py",
    "arguments": "unit/test_arguments.py unit/test_cli.py",
    "browser": "e2e/test_debug.py",
    "main": "unit/test_cli.py unit/test_arguments.py e2e/test_mount.py e2e/test_examples.py",
    "settings": "unit/test_config.py unit/test_arguments.py",
    "core": "e2e/test_server_api.py e2e/test_pep3333.py",
    "demo": "unit/test_demo.py",
    "development": "e2e/test_flask_picowsgi.py e2e/test_django_runserver.py e2e/test_reload.py",
    "apps": "e2e/test_django_runserver.py",
    "runserver": "e2e/test_django_runserver.py",
    "server": "e2e/test_server_api.py",
    "testing": "e2e/test_django.py",
    "environ": "e2e/test_pep3333.py",
    "error": "e2e/test_debug.py e2e/test_errors.py",
    "errors": "e2e/test_errors.py unit/test_cli.py",
    "workers": "unit/test_fleet.py e2e/test_processes.py",
    "fork_guard": "e2e/test_fork.py e2e/test_processes.py",
    "gateway": "e2e/test_pep3333.py e2e/test_errors.py e2e/test_simple_server.py",
    "restart": "e2e/test_reload.py e2e/test_loops.py",
    "input": "e2e/test_uploads.py",
    "status_pipe": "e2e/test_processes.py unit/test_fleet.py",
    "loop": "unit/test_loop.py e2e/test_threads.py",
    "incidents": "e2e/test_incidents.py",
    "stepping": "e2e/test_incidents.py e2e/test_errors.py",
    "option": "unit/test_config.py unit/test_arguments.py unit/test_cli.py",
    "template": "e2e/test_debug.py unit/test_demo.py",
    "pidfile": "unit/test_process_files.py",
    "privileges": "unit/test_process_files.py",
    "files": "unit/test_reload.py e2e/test_reload.py",
    "modules": "unit/test_reload.py e2e/test_reload.py",
    "reloader": "unit/test_reload.py e2e/test_reload.py",
    "snapshot": "unit/test_reload.py e2e/test_reload.py",
    "watcher": "unit/test_reload.py e2e/test_reload.py",
    "load": "unit/test_sockets.py unit/test_config.py",
    "values": "unit/test_sockets.py unit/test_config.py unit/test_middleware.py e2e/test_mount.py",
    "log_format": "e2e/test_access_log.py unit/test_docs.py unit/test_config.py",
    "log_config": "unit/test_log.py unit/test_cli.py",
    "respawn": "unit/test_fleet.py e2e/test_processes.py",
    "response": "e2e/test_pep3333.py e2e/test_files.py",
    "run": "e2e/test_signals.py e2e/test_stopping.py unit/test_cli.py",
    "exit": "e2e/test_processes.py e2e/test_stopping.py",
    "processes": "unit/test_process_files.py unit/test_gunicorn.py",
    "service": "e2e/test_signals.py e2e/test_stopping.py",
    "members": "e2e/test_signals.py e2e/test_stopping.py",
    "signals": "e2e/test_signals.py e2e/test_stopping.py unit/test_interrupt.py",
    "spawner": "e2e/test_processes.py",
    "supervisor": "e2e/test_processes.py e2e/test_signals.py",
    "toml": "unit/test_config.py",
    "upgrade": "e2e/test_processes.py e2e/test_signals.py",
    "watchdog": "unit/test_cli.py e2e/test_reload.py",
    "pool": "e2e/test_server_api.py e2e/test_stopping.py e2e/test_signals.py",
    "import_error": "e2e/test_reload.py",
}
_PYTHON_GENERAL = """
    unit/test_config.py unit/test_loop.py unit/test_log.py unit/test_fleet.py unit/test_importer.py
    unit/test_middleware.py unit/test_sockets.py unit/test_descriptors.py unit/test_head.py
    e2e/test_health.py e2e/test_server_api.py e2e/test_threads.py e2e/test_pep3333.py
    e2e/test_files.py e2e/test_errors.py unit/test_cli.py
"""
# These look at tools and documents, not at the server.
_UNRELATED = """
    bench_load bench_publish bench_results c_order check_dist docs mutants pypy python_t stress
    vendor
"""


Ordered = tuple[list[str], list[str]]  # the tests of a file itself, and the others


def c_tests(root: Path, file: str) -> Ordered:
    """The names of the C tests."""
    everything = sorted(path.stem for path in (root / "tests" / "c").glob("test_*.c"))
    if (root / "tests" / "c" / "threads" / "stress.c").exists():
        everything.append("threads/stress")
    stem = Path(file).stem
    first = [f"test_{name}" for name in C_TESTS.get(stem, ("", ""))[0].split()]
    first = [name for name in first if name in everything]
    parsers = [] if stem in _PARSERS or not stem else ["test_head"]
    rest = [name for name in everything if name not in {*first, *_SLOW, *parsers}]
    return first, [*rest, *(name for name in _SLOW if name in everything and name not in first)]


def python_tests(root: Path, file: str) -> Ordered:
    """The files and folders for pytest."""
    stem = Path(file).stem
    if file.endswith(".c"):
        first, rest = C_TESTS.get(stem, ("", ""))[1].split(), _C_GENERAL.split()
    else:
        resembling = (f"{folder}/test_{stem}.py" for folder in ("unit", "e2e"))
        first = [*_importing(root, file), *PYTHON_TESTS.get(stem, "").split(), *resembling]
        rest = _PYTHON_GENERAL.split()
    first = [name for name in dict.fromkeys(first) if (root / "tests" / name).exists()]
    rest = [name for name in rest if name not in first and (root / "tests" / name).exists()]
    return [f"tests/{name}" for name in first], [f"tests/{name}" for name in rest]


def _importing(root: Path, file: str) -> list[str]:
    """The unit tests that import a module."""
    module = re.escape(file.removeprefix("src/").removesuffix(".py").replace("/", "."))
    imports = re.compile(rf"^\s*(from|import) {module}\b", re.MULTILINE)
    tests = sorted((root / "tests" / "unit").glob("test_*.py"))
    return [f"unit/{path.name}" for path in tests if imports.search(path.read_text())]


def all_python_tests(root: Path) -> list[str]:
    """Every file of pytest that looks at the server."""
    unrelated = {f"test_{name}.py" for name in _UNRELATED.split()}
    return [
        str(path.relative_to(root))
        for path in sorted((root / "tests").rglob("test_*.py"))
        if path.name not in unrelated and not path.name.startswith("test_mutants")
    ]
