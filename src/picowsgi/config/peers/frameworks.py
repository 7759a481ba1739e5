"""The options of `flask run` and Django's `runserver`, and their equivalents: data only."""

from __future__ import annotations

from picowsgi.config.peers.row import DEFAULT, NOTHING, TLS, Row

FLASK = [
    Row("-A, --app", "--app", "or the argument APP"),
    Row("-e, --env-file", "--env-file"),
    Row("--debug", "--debug", "`--reload` is a separate option"),
    Row("--no-debug", DEFAULT),
    Row("--host", "--host", "`-h` is `--help`"),
    Row("-p, --port", "--port"),
    Row("--cert, --key", NOTHING, TLS),
    Row("--reload, --no-reload", "--reload, --no-reload"),
    Row("--debugger", "--debug", "with `picowsgi[debug]`"),
    Row("--no-debugger", DEFAULT),
    Row("--with-threads", DEFAULT, "the server starts threads when it needs them"),
    Row("--without-threads", "--threads", "as `--threads 1`"),
    Row("--extra-files", "--reload-include", "repeatable, patterns below `--reload-dir`"),
    Row("--exclude-patterns", "--reload-exclude", "repeatable"),
]

RUNSERVER = [
    Row("addrport", "--bind", "`--bind :8000` for all addresses"),
    Row("--ipv6, -6", "--bind", "as `[::1]:8000`"),
    Row("--nothreading", "--threads", "as `--threads 1`"),
    Row("--noreload", DEFAULT, "`--reload` switches the reload on"),
    Row(
        "--nostatic, --insecure",
        "--static",
        "[`manage.py runserver`](django.md) on picowsgi serves static files as Django does",
    ),
    Row("--settings", NOTHING, "set the variable `DJANGO_SETTINGS_MODULE`, or use `--env-file`"),
    Row("--pythonpath", "--app-dir"),
    Row("-v, --verbosity, --traceback", "--log-level"),
    Row("--no-color, --force-color", NOTHING, "set the variables `NO_COLOR` and `FORCE_COLOR`"),
    Row("--skip-checks", DEFAULT, "run `manage.py check`"),
]
