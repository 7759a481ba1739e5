"""The options of other servers are explained, and their tables name existing options."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

import pytest

from picowsgi.cli import main as cli
from picowsgi.config.load import load_settings
from picowsgi.config.peers import PEERS, explain
from picowsgi.config.peers.row import ARGUMENT, DEFAULT, NOTHING
from picowsgi.config.settings import OPTIONS
from picowsgi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FLAGS = {flag for option in OPTIONS.values() for flag in (option.flag, f"--no-{option.flag[2:]}")}
GENERAL = {"--config", "--check", "--version", "--help"}


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def gunicorn() -> Iterable[str]:
    from gunicorn.config import KNOWN_SETTINGS

    for setting in KNOWN_SETTINGS:
        yield from setting.cli or [setting.name]


def of_click(parameters: Iterable[object]) -> Iterable[str]:
    for parameter in parameters:
        yield from (name for name in (*parameter.opts, *parameter.secondary_opts) if "-" in name)


def uvicorn() -> Iterable[str]:
    return of_click(importlib.import_module("uvicorn.main").main.params)


def granian() -> Iterable[str]:
    return of_click(importlib.import_module("granian.cli").cli.params)


def waitress() -> Iterable[str]:
    return [name for name, _ in importlib.import_module("waitress.adjustments").Adjustments._params]


def flask_run() -> Iterable[str]:
    from flask.cli import cli as flask
    from flask.cli import run_command

    return [*of_click(run_command.params), *of_click(flask.params)]


def runserver() -> Iterable[str]:
    from django.core.management.commands.runserver import Command

    for action in Command().create_parser("manage.py", "runserver")._actions:
        yield from action.option_strings or [action.dest]


@pytest.mark.parametrize(
    ("peer", "names"),
    [
        ("gunicorn", gunicorn),
        ("uvicorn", uvicorn),
        ("granian", granian),
        ("waitress", waitress),
        ("flask run", flask_run),
        ("runserver", runserver),
    ],
)
def test_every_option_of_another_server_is_explained(peer, names) -> None:
    """Options of which this server has none stand in its table with the reason."""
    module = peer.partition(" ")[0].replace("runserver", "django")
    pytest.importorskip(module, reason="the test extra does not install it")
    known = {name for row in PEERS[peer] for name in row.names}
    known |= {name.replace("_", "-") for name in known} | {name.lstrip("-") for name in known}
    known |= {"app", "-h", "-c", "-t", "-V", "default_proc_name", *GENERAL}
    missing = [name for name in names() if not {name, name.replace("_", "-")} & known]
    assert missing == [], f"{peer} has options that the table has not"


def test_every_row_names_options_that_exist() -> None:
    for peer, rows in PEERS.items():
        for row in rows:
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", f"{row.ours} {row.note}"))
            assert named <= FLAGS | GENERAL, f"{peer}: {row}"
            if row.ours not in (NOTHING, DEFAULT, ARGUMENT):
                assert set(row.ours.split(", ")) <= FLAGS | GENERAL, f"{peer}: {row}"


def test_no_option_is_twice_in_a_table_and_each_without_equivalent_has_a_reason() -> None:
    for peer, rows in PEERS.items():
        names = [name for row in rows for name in row.names]
        assert len(names) == len(set(names)), peer
        assert all(row.note for row in rows if row.ours == NOTHING), peer


def test_an_option_with_the_same_name_is_the_equivalent() -> None:
    # The values differ.
    different = {"--metrics", "--log-config", "-w"}
    for peer, rows in PEERS.items():
        for row in rows:
            for name in set(row.names) & (FLAGS | GENERAL) - different:
                ours = row.ours.split(", ")
                assert name in ours or ours == [DEFAULT], f"{peer}: {name}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("--worker-class", "gunicorn's --worker-class has no equivalent (one kind of worker "),
        ("-k", "gunicorn's -k has no equivalent (one kind of worker "),
        ("--limit-request-field_size", "is --max-head-size here (one limit for "),
        (
            "--ssl-keyfile",
            "uvicorn's and granian's --ssl-keyfile has no equivalent (picowsgi has no ",
        ),
        ("--die-on-term", "uWSGI's --die-on-term needs no option here"),
        ("--wsgi-file", "uWSGI's --wsgi-file is the argument APP here (mysite:app, or mysite.py)"),
        ("-p", "gunicorn's -p is --pid here; flask run's -p is --port here"),
        ("--access-logfile", "is --access-log and --access-log-file here (- is standard output)"),
        ("--lifespan", "has no equivalent (picowsgi supports WSGI only)"),
    ],
)
def test_an_option_of_another_server_is_explained_by_name(name: str, text: str) -> None:
    assert text in explain(name, flag_of)
    assert "](" not in explain(name, flag_of)


def test_an_option_that_no_server_has_is_not_explained() -> None:
    assert explain("--frobnicate", flag_of) == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--uds", "x"], "unknown option --uds; uvicorn's and granian's --uds is --bind here (as"),
        (["--workers-class", "x"], "unknown option --workers-class; gunicorn's --worker-class has"),
        (["-kgevent"], "unknown option -k; gunicorn's -k has no equivalent ("),
        (["--thread", "1"], "unknown option --thread; did you mean --threads?"),
        (["--chek"], "unknown option --chek; did you mean --check?"),
        (["--aps"], "unknown option --aps; did you mean --app?"),
    ],
)
def test_the_command_explains_an_unknown_option_and_ends_with_status_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert cli.main(argv) == 2
    assert message in capsys.readouterr().err


def test_the_names_of_options_are_those_of_the_place_where_the_user_wrote_them(
    tmp_path: Path,
) -> None:
    file = tmp_path / "own.toml"
    file.write_text("keepalive = 5\n")
    with pytest.raises(ConfigError, match="gunicorn's keepalive is timeout_keep_alive here"):
        load_settings(environ={}, config_file=file)
    with pytest.raises(ConfigError, match="unix_socket_perms is unix_socket_mode here"):
        load_settings({"unix_socket_perms": "600"}, {}, tmp_path)
    with pytest.raises(ConfigError, match="gunicorn's preload-app is PICOWSGI_PRELOAD here"):
        load_settings({}, {"PICOWSGI_PRELOAD-APP": "1"}, tmp_path)
