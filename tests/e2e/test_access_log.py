"""The access log has one line for each request, and no client can break a line."""

import base64
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picowsgi.errors import ConfigError
from picowsgi.threads.access_log import compile_format
from soak.process import open_files
from support import connect, raw

PLAIN = [("Content-Type", "text/plain")]
COMBINED = re.compile(
    r'127\.0\.0\.1 - (\S+) \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "([^"]*)" '
    r'(\d{3}) (\d+|-) "([^"]*)" "([^"]*)"'
)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/error":
        raise RuntimeError("as the test wants it")
    if environ["PATH_INFO"] == "/file":
        start_response("200 OK", PLAIN)
        return environ["wsgi.file_wrapper"](Path(__file__).open("rb"))
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", PLAIN)
        return iter([b"abc", b"def"])
    start_response("200 OK", [*PLAIN, ("X-Answer", "forty-two")])
    return [b"hello"]


@pytest.fixture
def logged(serve, tmp_path):
    """`logged(bytes, ...)` sends each to a server with its own format, and returns the lines."""

    def run(*requests, count=None, **options):
        file = tmp_path / "access.log"
        file.unlink(missing_ok=True)
        # In one loop the lines are in the order of the requests.
        options = {"access_log": "on", "access_log_file": str(file), "loops": 1, **options}
        server = serve(application, **options)
        for request in requests:
            raw(server, request, count=count or 1)
        server.stop()
        return file.read_text("ascii").splitlines()

    return run


def request(target="/", fields="", method="GET"):
    return f"{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode("latin-1")


def test_a_request_is_one_line_in_the_combined_format(logged):
    user = base64.b64encode(b"eva:secret").decode()
    fields = f"Referer: http://b/\r\nUser-Agent: curl/8\r\nAuthorization: Basic {user}\r\n"
    (line,) = logged(request("/a?b=c", fields))
    match = COMBINED.fullmatch(line)
    assert match, f"expected a line of the combined format, got: {line}"
    assert match.groups() == (
        "eva",
        "GET /a?b=c HTTP/1.1",
        "200",
        "5",
        "http://b/",
        "curl/8",
    )


def test_a_missing_value_is_a_dash(logged):
    (line,) = logged(request())
    assert line.endswith(' "GET / HTTP/1.1" 200 5 "-" "-"'), line


def test_errors_and_streams_and_files_are_logged_with_their_status_and_bytes(logged):
    requests = (request(path) for path in ("/error", "/stream", "/file"))
    lines = logged(*requests, access_log_format="%(U)s %(s)s %(B)s")
    size = Path(__file__).stat().st_size
    assert lines == ["/error 500 22", "/stream 200 6", f"/file 200 {size}"]


def test_a_file_is_logged_with_its_bytes(logged):
    size = Path(__file__).stat().st_size
    assert logged(request("/file"), access_log_format="%(s)s %(B)s") == [f"200 {size}"]


def test_a_refused_request_is_logged_with_all_that_is_known_about_it(logged):
    lines = logged(
        request("/x", "Content-Length: 5, 5\r\n"),
        b"nonsense\r\n\r\n",
        b'\x16\x03\x01 "TLS" \xff\r\n\r\n',
        b"\r\rX\r\n\r\n",
        b"GET /late HTTP/1.1\r\nHost: a\r\nContent-Length: 0x\r\n\r\n",
        access_log_format="%(r)s %(s)s",
    )
    assert lines == [
        "GET /x HTTP/1.1 400",
        "- nonsense HTTP/1.0 400",
        r"- \x16\x03\x01 \x22TLS\x22 \xff HTTP/1.0 400",
        "- - HTTP/1.0 400",
        "GET /late HTTP/1.1 400",
    ]


def test_a_repeated_head_with_another_request_line_is_logged_with_its_own_values(serve, tmp_path):
    file = tmp_path / "log"
    server = serve(
        application,
        access_log="on",
        access_log_file=str(file),
        access_log_format="%(r)s %({user-agent}i)s",
    )
    with connect(server) as client:
        for path in ("/1", "/1", "/1", "/1", "/2", "/3?x", "/1"):
            client.send(request(path, "User-Agent: one\r\n"))
            client.read_response()
        client.send(request("/1", "User-Agent: two\r\n"))
        client.read_response()
    server.stop()
    lines = [f"GET {path} HTTP/1.1 one" for path in ("/1", "/1", "/1", "/1", "/2", "/3?x", "/1")]
    assert file.read_text().splitlines() == [*lines, "GET /1 HTTP/1.1 two"]


def test_a_custom_format_has_fields_of_both_heads_and_times(logged):
    fields = "X-Id: 7\r\n"
    form = "%({x-id}i)s %({X-Answer}o)s %({none}i)s %({none}o)s %(D)s %(M)s %(L)s %(T)s %(Q)s %%"
    (line,) = logged(request("/", fields), access_log_format=form)
    assert re.fullmatch(r"7 forty-two - - \d+ \d+ \d+\.\d{6} \d+ \d+ %", line), line


def test_a_json_line_describes_the_request(logged):
    (line,) = logged(request("/a?b", "User-Agent: x\r\n"), access_log_format="json")
    entry = json.loads(line)
    assert entry["method"] == "GET"
    assert entry["target"] == "/a?b"
    assert entry["status"] == 200
    assert entry["bytes"] == 5
    assert entry["remote_addr"] == "127.0.0.1"
    assert entry["user_agent"] == "x"
    assert entry["duration"] >= 0
    assert entry["queued"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", entry["time"])


def test_all_lines_of_many_requests_survive_a_normal_stop(logged):
    lines = logged(*[request(f"/{n}") * 50 for n in range(10)], count=50, access_log_format="%(U)s")
    assert sorted(lines) == sorted(f"/{n}" for n in range(10) for _ in range(50))


def test_the_file_is_opened_again_after_a_rotation(serve, tmp_path):
    file = tmp_path / "log"
    server = serve(
        application, access_log="on", access_log_file=str(file), access_log_format="%(U)s"
    )
    raw(server, request("/before"), count=1)
    file.rename(tmp_path / "log.1")
    server.reopen_logs()
    raw(server, request("/after"), count=1)
    server.stop()
    assert (tmp_path / "log.1").read_text() == "/before\n"
    assert file.read_text() == "/after\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_rotations_leave_one_descriptor(serve, tmp_path):
    file = tmp_path / "log"
    server = serve(application, access_log="on", access_log_file=str(file))
    raw(server, request("/"), count=1)

    def opened():
        return sum(str(tmp_path) in name for name in open_files())

    before = opened()
    for number in range(1000):
        file.rename(tmp_path / "log.1")
        server.reopen_logs()
        if number % 100 == 0:
            raw(server, request(f"/{number}"), count=1)
    assert opened() == before
    raw(server, request("/after"), count=1)
    server.stop()
    assert "/after" in file.read_text()


def test_without_a_terminal_the_access_log_is_off_by_default(serve, capfd):
    server = serve(application)
    raw(server, request(), count=1)
    server.stop()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "form", ["%(x)s", "%(h)", "100%", "%({a b}i)s", "%({a}e)s", "\n", "\u00e9", "%(hh)s"]
)
def test_an_invalid_format_is_a_clear_error(serve, form):
    with pytest.raises(ConfigError, match="access_log_format"):
        serve(application, access_log_format=form)


def test_every_atom_can_be_compiled():
    for atom in "hlutrmURqHsBbfaTLMDQp":
        assert compile_format(f"%({atom})s")


VALUES = st.binary(max_size=40).map(
    lambda value: bytes(c for c in value if (c >= 32 and c != 127) or c == 9).strip(b" \t")
)
QUERIES = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=30
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(query=QUERIES, agent=VALUES, referer=VALUES)
@pytest.mark.parametrize("form", ["combined", "json"])
def test_no_byte_from_a_client_can_break_a_line(logged, form, query, agent, referer):
    data = b"GET /?%b HTTP/1.1\r\nHost: a\r\nUser-Agent: %b\r\nReferer: %b\r\n\r\n"
    data %= query.encode(), agent, referer
    lines = logged(data, access_log_format=form)
    assert len(lines) == 1, lines
    if form == "json":
        entry = json.loads(lines[0])
        assert entry["target"] == "/?" + query
        assert entry["user_agent"] == (agent.decode("latin-1") or "-")
        assert entry["referer"] == (referer.decode("latin-1") or "-")
    else:
        match = COMBINED.fullmatch(lines[0])
        assert match, lines[0]
        unescaped = [
            part.encode().decode("unicode_escape").encode("latin-1") for part in match.groups()
        ]
        assert unescaped[1] == b"GET /?%b HTTP/1.1" % query.encode()
        assert unescaped[4:] == [referer or b"-", agent or b"-"]
