"""Real clients (curl, urllib3, httpx, http.client) send all kinds of ordinary requests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from http.client import HTTPConnection

import httpx
import pytest
import urllib3

MEBIBYTE = 1 << 20
TIMEOUT = 30
# curl runs without the library that is preloaded into Python, such as a sanitizer.
CURL_ENVIRON = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


@pytest.fixture(scope="module")
def server(serve_module, load_app):
    return serve_module(load_app("many_answers.py").application)


@pytest.fixture(scope="module")
def large(load_app):
    return load_app("many_answers.py").LARGE


@pytest.fixture
def base(server):
    return server.url.rstrip("/")


@pytest.fixture
def upload(tmp_path):
    """A file to send: slightly more than 3 MiB, so that no buffer divides it."""
    path = tmp_path / "upload.bin"
    path.write_bytes(b"".join(number.to_bytes(4, "big") for number in range(800_003)))
    return path


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# --- curl ---------------------------------------------------------------------------------------


def curl(*arguments, stdin=None):
    """Run curl and return its standard output. If curl fails, the test fails."""
    program = shutil.which("curl")
    assert program, "these tests need curl"
    done = subprocess.run(
        [program, "-sS", "--max-time", str(TIMEOUT), "--noproxy", "*", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env=CURL_ENVIRON,
    )
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr.decode()}"
    return done.stdout


def test_curl_gets_a_page_with_its_head(base):
    head, _, content = curl("-i", f"{base}/hello").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert content == b"hello\n"


def test_curl_gets_the_head_alone(base):
    head = curl("-I", f"{base}/hello")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 6\r\n" in head.lower()


def test_curl_speaks_http_1_0(base):
    answer = curl("-0", "-i", f"{base}/echo")
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"200"
    assert json.loads(content)["protocol"] == "HTTP/1.0"
    streamed = curl("-0", "-i", f"{base}/streamed")
    head, _, content = streamed.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert len(content) == 5 * MEBIBYTE


def test_curl_posts_a_form(base):
    answer = curl("--data-urlencode", "name=Ada & Grace", "-d", "n=2", f"{base}/form")
    assert json.loads(answer) == [["name", "Ada & Grace"], ["n", "2"]]


def test_curl_uses_one_connection_for_several_requests(base):
    report = "%{stderr}%{num_connects} "
    program = shutil.which("curl")
    urls = [f"{base}/hello", f"{base}/no-content", f"{base}/streamed", f"{base}/echo"]
    sinks = [word for url in urls for word in ("-o", "/dev/null", url)]
    done = subprocess.run(
        [program, "-s", "--noproxy", "*", "-w", report, *sinks],
        capture_output=True,
        timeout=TIMEOUT,
        env=CURL_ENVIRON,
    )
    assert done.stderr.split() == [b"1", b"0", b"0", b"0"], "expected one connection for all"


@pytest.mark.parametrize("status", ["301", "302", "303"])
def test_curl_follows_a_redirect_of_a_form_with_get(base, status):
    seen = json.loads(curl("-L", "-d", "a=b", f"{base}/redirect?{status}"))
    assert (seen["method"], seen["query"], seen["size"]) == ("GET", "redirected", 0)


@pytest.mark.parametrize("status", ["307", "308"])
def test_curl_sends_the_content_again_when_the_redirect_asks_for_it(base, status):
    seen = json.loads(curl("-L", "-d", "a=b", f"{base}/redirect?{status}"))
    assert (seen["method"], seen["query"], seen["size"]) == ("POST", "redirected", 3)


def test_curl_sees_that_204_and_304_end_at_once(base):
    assert curl("-w", "%{http_code}", f"{base}/no-content") == b"204"
    match = ["-H", 'If-None-Match: "hello"']
    assert curl("-w", "%{http_code}", *match, f"{base}/not-modified") == b"304"


def test_curl_receives_5_mib_at_once_and_streamed(base, large):
    assert curl(f"{base}/large") == large
    assert curl(f"{base}/streamed") == large


def test_curl_uploads_a_file_after_100_continue(base, upload):
    program = shutil.which("curl")
    # Without a 100 curl would wait longer than it may run.
    wait = ["--expect100-timeout", str(2 * TIMEOUT), "--max-time", str(TIMEOUT)]
    arguments = ["-v", "--noproxy", "*", *wait, "-H", "Expect: 100-continue"]
    done = subprocess.run(
        [program, *arguments, "-T", str(upload), f"{base}/echo"],
        capture_output=True,
        env=CURL_ENVIRON,
    )
    assert done.returncode == 0, done.stderr.decode()
    heads = [line for line in done.stderr.splitlines() if line.startswith(b"< HTTP/1.1 ")]
    assert [line.split()[2] for line in heads] == [b"100", b"200"]
    seen = json.loads(done.stdout)
    assert (seen["method"], seen["length"]) == ("PUT", str(upload.stat().st_size))
    assert seen["sha256"] == sha256(upload.read_bytes())


def test_curl_posts_a_large_file_and_uses_the_connection_again(base, upload):
    post = ["--data-binary", f"@{upload}", f"{base}/echo"]
    answers = curl(*post, "--next", "-sS", "--noproxy", "*", *post)
    first, second = json.loads(f"[{answers.decode().replace('}{', '},{')}]")
    assert first["sha256"] == second["sha256"] == sha256(upload.read_bytes())
    assert first["port"] == second["port"]


def test_curl_uploads_chunks_that_it_reads_from_a_pipe(base, upload):
    content = upload.read_bytes()
    seen = json.loads(curl("-T", "-", f"{base}/echo", stdin=content))
    assert seen["sha256"] == sha256(content)
    assert seen["length"] == str(len(content)), "expected a length for chunked content"
    assert seen["coding"] == "", "expected the field to be removed with the coding"


def test_curl_sends_a_multipart_form(base, upload):
    seen = json.loads(curl("-F", f"file=@{upload}", "-F", "name=x", f"{base}/echo"))
    assert seen["type"].startswith("multipart/form-data; boundary=")
    assert seen["size"] > upload.stat().st_size


def test_curl_reads_slowly_and_gets_every_byte(base, large):
    assert curl("--limit-rate", "20M", f"{base}/streamed") == large


# --- http.client --------------------------------------------------------------------------------


def test_http_client_sends_a_thousand_requests_over_one_connection(server):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    connection.connect()
    port = str(connection.sock.getsockname()[1])
    for number in range(1_000):
        connection.request("GET", f"/echo?{number}")
        seen = json.loads(connection.getresponse().read())
        assert seen["query"] == str(number)
        assert seen["port"] == port, f"request {number} came over a new connection"
    connection.close()


def test_http_client_gets_every_kind_of_response_on_one_connection(server, large):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    expected = [
        ("GET", "/hello", 200, b"hello\n"),
        ("HEAD", "/hello", 200, b""),
        ("GET", "/no-content", 204, b""),
        ("HEAD", "/large", 200, b""),
        ("GET", "/redirect?302", 302, b""),
        ("HEAD", "/streamed", 200, b""),
        ("GET", "/missing", 404, b"not found\n"),
        ("GET", "/large", 200, large),
        ("DELETE", "/no-content", 204, b""),
        ("GET", "/streamed", 200, large),
        ("GET", "/hello", 200, b"hello\n"),
    ]
    connection.connect()
    sock = connection.sock
    for method, target, status, content in expected:
        connection.request(method, target)
        response = connection.getresponse()
        assert (response.status, response.read()) == (status, content), (method, target)
        assert connection.sock is sock, f"the connection was closed after {method} {target}"
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "X-OWN"])
def test_http_client_sends_content_with_any_method(server, method):
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    connection.request(method, "/echo", body=b"content")
    seen = json.loads(connection.getresponse().read())
    connection.close()
    assert (seen["method"], seen["sha256"]) == (method, sha256(b"content"))


# --- urllib3 ------------------------------------------------------------------------------------


@pytest.fixture
def pool():
    retries = urllib3.Retry(None, connect=0, read=0, redirect=5)
    manager = urllib3.PoolManager(timeout=TIMEOUT, retries=retries)
    yield manager
    manager.clear()


def test_urllib3_gets_heads_and_posts(pool, base):
    assert pool.request("GET", f"{base}/hello").data == b"hello\n"
    head = pool.request("HEAD", f"{base}/hello")
    assert (head.data, head.headers["Content-Length"]) == (b"", "6")
    posted = pool.request_encode_body(
        "POST", f"{base}/form", fields={"a": "1 & 2"}, encode_multipart=False
    )
    assert posted.json() == [["a", "1 & 2"]]
    assert pool.request("POST", f"{base}/double", json=[1, 2]).json() == [2, 4]


def test_urllib3_keeps_its_connection(pool, base):
    ports = {pool.request("GET", f"{base}/echo").json()["port"] for _ in range(20)}
    assert len(ports) == 1, "expected one connection for all requests"


def test_urllib3_follows_redirects(pool, base):
    seen = pool.request("POST", f"{base}/redirect?303", body=b"x").json()
    assert (seen["method"], seen["query"]) == ("GET", "redirected")


def test_urllib3_streams_a_response(pool, base, large):
    response = pool.request("GET", f"{base}/streamed", preload_content=False)
    pieces = list(response.stream(50_000))
    response.release_conn()
    assert b"".join(pieces) == large
    assert pool.request("GET", f"{base}/hello").data == b"hello\n"


def test_urllib3_uploads_in_chunks(pool, base):
    pieces = [b"one", b"two" * 50_000, b"three"]
    seen = pool.request("POST", f"{base}/echo", body=iter(pieces), chunked=True).json()
    assert seen["sha256"] == sha256(b"".join(pieces))


# --- httpx --------------------------------------------------------------------------------------


@pytest.fixture
def client(base):
    with httpx.Client(base_url=base, timeout=TIMEOUT, trust_env=False) as one:
        yield one


def test_httpx_gets_heads_and_posts(client):
    assert client.get("/hello").text == "hello\n"
    head = client.head("/hello")
    assert (head.content, head.headers["Content-Length"]) == (b"", "6")
    assert client.post("/form", data={"a": "é"}).json() == [["a", "é"]]
    assert client.post("/double", json=[5]).json() == [10]


def test_httpx_keeps_its_connection(client):
    ports = {client.get("/echo").json()["port"] for _ in range(20)}
    assert len(ports) == 1, "expected one connection for all requests"


def test_httpx_follows_redirects(client):
    answer = client.post("/redirect?307", content=b"again", follow_redirects=True)
    assert [one.status_code for one in answer.history] == [307]
    assert answer.json()["sha256"] == sha256(b"again")


def test_httpx_sees_204_and_304(client):
    assert client.get("/no-content").status_code == 204
    etag = client.get("/not-modified").headers["ETag"]
    answer = client.get("/not-modified", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_httpx_streams_both_ways(client, large):
    with client.stream("GET", "/streamed") as response:
        assert b"".join(response.iter_bytes()) == large

    def pieces():
        for position in range(0, len(large), 300_007):
            yield large[position : position + 300_007]

    seen = client.post("/echo", content=pieces()).json()
    assert (seen["size"], seen["sha256"]) == (len(large), sha256(large))
