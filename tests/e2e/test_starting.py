"""How an application is started: scripts outside of the watched directory, and their variables."""

from __future__ import annotations

import sys

import pytest

from support.development import get
from support.processes import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SCRIPT = """
import os
from site_code import VERSION

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.environ['GREETING']}".encode()]
"""


def test_a_wsgi_script_and_the_file_of_its_variables_are_watched(picowsgi, tmp_path):
    pytest.importorskip("dotenv")
    here, deploy = tmp_path / "here", tmp_path / "deploy"
    here.mkdir()
    deploy.mkdir()
    script, variables = deploy / "site.wsgi", deploy / "dev.env"
    (deploy / "site_code.py").write_text("VERSION = 1\n")
    script.write_text(SCRIPT)
    variables.write_text("GREETING=hello\nPICOWSGI_REQUEST_ID=on\n")
    options = ("--reload", "--env-file", "../deploy/dev.env")
    server = picowsgi(*options, "../deploy/site.wsgi", directory=here)

    def expect(status, text):
        def answered():
            response, content = get(server)
            return response.status == status and text in content

        eventually(answered, f"the response {status} {text}")

    expect(200, "1 hello")
    script.write_text(SCRIPT.replace("{VERSION}", "{VERSION +}"))
    expect(500, "SyntaxError")
    script.write_text(SCRIPT.replace("{VERSION}", "{VERSION + 1}"))
    expect(200, "2 hello")
    variables.write_text("GREETING=bye\n")
    expect(200, "2 bye")
    variables.write_text("GREETING\n\n= =\n")
    expect(500, "dev.env, line 3: expected NAME=VALUE")
    variables.write_text("GREETING=again\n")
    expect(200, "2 again")
    (deploy / "site_code.py").write_text("VERSION = 2\n")
    expect(200, "3 again")
    assert server.stop() == 0, server.log
