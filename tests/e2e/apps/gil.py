"""Prints whether the GIL is on: after the import of picowsgi, in a request, and at the end."""

import sys
import urllib.request

import picowsgi


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(sys._is_gil_enabled()).encode()]


with picowsgi.Server(application, port=0) as server:
    states = [repr(sys._is_gil_enabled())]
    with urllib.request.urlopen(server.url) as response:
        states.append(response.read().decode())
states.append(repr(sys._is_gil_enabled()))
sys.stdout.write(" ".join(states))
