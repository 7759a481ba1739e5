"""Behind a real nginx: frameworks know the client, and that the site has HTTPS."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from contextlib import ExitStack

import pytest

from support.processes import PROCESS_TIMEOUT, eventually, listens
from support.proxies import free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")

# As in docs/deployment.md, but for the certificate: $scheme is https there.
CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream site {{
        server unix:{socket};
        keepalive 1;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://site;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-Port "";
            proxy_set_header X-Forwarded-Prefix "";
            proxy_set_header Forwarded "";
        }}
    }}
}}
"""
DJANGO = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.urls import path

settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["example.com"],
    ROOT_URLCONF=__name__,
    SECURE_SSL_REDIRECT=True,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
)

def form(request):
    if request.method == "POST":
        return HttpResponse("posted by " + request.META["REMOTE_ADDR"])
    return HttpResponse(get_token(request) + " " + request.build_absolute_uri())

urlpatterns = [path("", form)]
app = get_wsgi_application()
"""
FLASK = """
from flask import Flask, redirect, request, url_for

app = Flask(__name__)

@app.get("/")
def index():
    return {"url": url_for("index", _external=True), "client": request.remote_addr}

@app.get("/away")
def away():
    return redirect(url_for("index", _external=True))
"""


class Site:
    """An application on a unix socket, with nginx before it."""

    def __init__(self, command, directory, source, *options):
        (directory / "site_app.py").write_text(source)
        self.server = command(
            *("-m", "picowsgi", "--bind", "unix:s", *options, "site_app:app"),
            directory=directory,
            stdout=True,
            listens=False,
        )
        eventually((directory / "s").exists, "the socket")
        self.port = free_port()
        config = directory / "nginx.conf"
        config.write_text(
            CONFIG.format(directory=directory, socket=directory / "s", port=self.port)
        )
        self._nginx = subprocess.Popen([NGINX, "-p", directory, "-c", config])
        eventually(lambda: listens(self.port), "nginx to listen")

    def end(self):
        self._nginx.terminate()
        self._nginx.wait(PROCESS_TIMEOUT)

    def ask(self, target, form=None, headers=None):
        """Return the status, the headers and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PROCESS_TIMEOUT)
        try:
            fields = {"Host": "example.com", **(headers or {})}
            if form is not None:
                fields["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request("GET" if form is None else "POST", target, form, fields)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def behind_nginx(command, tmp_path):
    """Serve the application `app` of this source: `behind_nginx(DJANGO)`."""
    with ExitStack() as stack:

        def start(source, *options):
            site = Site(command, tmp_path, source, *options)
            stack.callback(site.end)
            return site

        yield start


def test_django_accepts_a_form_and_does_not_redirect_without_end(behind_nginx):
    pytest.importorskip("django")
    site = behind_nginx(DJANGO)
    status, headers, body = site.ask("/")
    token, _, url = body.partition(" ")
    assert (status, url) == (200, "https://example.com/")
    cookie = headers["Set-Cookie"].partition(";")[0]
    form = f"csrfmiddlewaretoken={token}"
    for origin, expected in (("https://example.com", 200), ("http://example.com", 403)):
        sent = {"Cookie": cookie, "Origin": origin, "Referer": f"{origin}/"}
        status, _, body = site.ask("/", form, sent)
        assert status == expected
        assert (body == "posted by 127.0.0.1") == (expected == 200)


def test_flask_makes_urls_of_https(behind_nginx):
    pytest.importorskip("flask")
    site = behind_nginx(FLASK)
    status, _, body = site.ask("/")
    assert status == 200
    assert json.loads(body) == {"url": "https://example.com/", "client": "127.0.0.1"}
    assert site.ask("/away")[1]["Location"] == "https://example.com/"


def test_a_client_forges_nothing(behind_nginx):
    pytest.importorskip("flask")
    # The client has an address of this machine, which would be trusted by default.
    options = ("--forwarded-allow-ips=unix", "--access-log", "--access-log-format=by %(h)s")
    site = behind_nginx(FLASK, *options)
    forged = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=203.0.113.9;host=evil.example",
    }
    for headers in (forged, {}, forged):  # nginx has one connection to the server
        status, _, body = site.ask("/", headers=headers)
        assert status == 200
        assert json.loads(body) == {"url": "https://example.com/", "client": "127.0.0.1"}
    site.server.wait_for_log("by 127.0.0.1\n", 3)
