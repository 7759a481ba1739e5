"""`pserve` serves a Pyramid application on picowsgi."""

from __future__ import annotations

import signal

import pytest

from support.development import get
from support.paste_files import write_shop

PYRAMID = """
import logging
from pyramid.config import Configurator
from pyramid.response import Response

def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("home", "/{name}")
    def view(request):
        logging.getLogger("shop").debug("asked for %s", request.path)
        return Response(f"{settings['greeting']} {request.matchdict['name']}")
    config.add_view(view, route_name="home")
    return config.make_wsgi_app()
"""


def test_pserve_serves_a_pyramid_application(command, tmp_path):
    pytest.importorskip("pyramid")
    write_shop(tmp_path, PYRAMID)
    server = command(
        *("-W", "ignore", "-m", "pyramid.scripts.pserve", "shop.ini"),
        directory=tmp_path,
        environ={"PYTHONPATH": str(tmp_path)},
    )
    response, text = get(server, "/Ada")
    assert (response.getheader("Server"), text) == ("picowsgi", "hello Ada")
    server.wait_for_log("DEBUG [shop:10] asked for /Ada")
    assert "INFO  [picowsgi:" in server.log
    assert server.stop(signal.SIGINT) == 0, server.log
    assert "Traceback" not in server.log
