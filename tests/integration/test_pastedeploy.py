"""Files for PasteDeploy: as the application of the command, and the options of their servers."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from picowsgi.cli import main as cli
from picowsgi.config.server_section import make_section
from picowsgi.contrib.paste import serve_paste
from picowsgi.errors import ConfigError
from support.development import get
from support.paste_files import write_shop
from support.processes import eventually

pytest.importorskip("paste.deploy")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write an application and its file: `write(threads="x")` replaces a line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return partial(write_shop, tmp_path)


def test_the_command_serves_a_file_with_its_logs_and_reloads_it(write, command, tmp_path):
    ini = write()
    server = command("-m", "picowsgi", "--reload", "shop.ini#piped", directory=tmp_path)
    assert get(server, "/a")[1] == "good day"
    server.wait_for_log("DEBUG [shop:6] asked for /a")
    assert "up to 3 threads" in server.log
    for wrong, right in (("good day", "bye"), ("bye", "farewell")):
        ini.write_text(ini.read_text().replace(wrong, right))
        eventually(lambda right=right: get(server)[1] == right, "the new greeting")
    ini.write_text(ini.read_text().replace("pipeline = other", "pipeline = absent"))
    eventually(lambda: get(server)[0].status == 500, "a page with the error")
    assert "No section 'absent'" in server.log
    assert server.stop() == 0, server.log


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"threads": "threads = x"},
            (
                "threads in the server section of shop.ini: "
                "expected a whole number from 1 to 4096, got 'x'"
            ),
        ),
        (
            {"listen": "listen = 127.0.0.1:80 nowhere"},
            (
                "bind in the server section of shop.ini: expected HOST:PORT, :PORT, [V6]:PORT, "
                "unix:PATH or fd://N, with a port from 0 to 65535, got 'nowhere'"
            ),
        ),
        (
            {"threads": "connection_limit = 5"},
            (
                "unknown option 'connection_limit' in the server section of shop.ini; "
                "waitress's connection_limit is max_connections here"
            ),
        ),
        ({"level": "level = LOUD"}, "shop.ini: its logging sections cannot be used: "),
        ({"greeting": "greeting = %(absent)s"}, "shop.ini: "),
        ({"greeting": ""}, "loading shop.ini failed with TypeError; its own traceback says where"),
        ({"threads": "[uwsgi]"}, "shop.ini is a file for uWSGI; name the application"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(write, capsys, monkeypatch, changes, message):
    monkeypatch.setattr(cli, "configure", lambda *_, **_looks: None)
    write(**changes)
    assert cli.main(["--check", "shop.ini"]) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (["shop.ini#absent"], "shop.ini: No section 'absent'"),
        (["shpo.ini"], "there is no file 'shpo.ini' in "),
        (["--factory", "shop.ini"], "shop.ini is a file for PasteDeploy; leave --factory out"),
    ],
)
def test_a_wrong_name_is_refused(write, capsys, name, message):
    write()
    assert cli.main(["--check", *name]) == 1
    assert message in capsys.readouterr().err


def test_without_pastedeploy_the_error_names_the_extra(write, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "paste.deploy", None)
    write()
    assert cli.main(["--check", "shop.ini"]) == 1
    expected = "shop.ini needs PasteDeploy: pip install 'picowsgi[paste]'"
    assert expected in capsys.readouterr().err


def test_of_the_section_of_another_server_the_command_takes_the_address(write, capsys):
    write(server="waitress", threads="channel_timeout = 5")
    # The options of the command and the environment win over the file.
    assert cli.main(["--check", "--bind", "127.0.0.1:7", "shop.ini"]) == 0
    assert "127.0.0.1:7" in capsys.readouterr().out
    write(server="waitress", listen="host = *", threads="port = 5\nclear_x = 1")
    assert cli.main(["--check", "shop.ini"]) == 0
    shown = capsys.readouterr().out
    assert "port                 5 " in shown
    assert "0.0.0.0 " in shown


def test_the_section_has_all_options_as_texts():
    values = {
        "listen": "127.0.0.1:80 *:81",
        "unix_socket": "/run/x",
        "unix_socket_perms": "600",
        "static": "/a=a\n/b=b, /c=c",
        "debug": "true",
    }
    assert make_section(values, "x.ini").options == {
        "bind": ["127.0.0.1:80", ":81", "unix:/run/x"],
        "unix_socket_mode": "600",
        "static": ["/a=a", "/b=b", "/c=c"],
        "debug": "true",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_body_size": "1X"}, "max_body_size in the server section of /x.ini: expected a size"),
        ({"reload": "yes"}, "use pserve --reload, or picowsgi --reload"),
        ({"env_file": ".env"}, "only the command picowsgi has it"),
        ({"ident": "x"}, "waitress's ident has no equivalent"),
    ],
)
def test_under_pserve_a_wrong_option_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        serve_paste(lambda environ, start_response: [], {"__file__": "/x.ini"}, **options)
