"""Each rule of PEP 3333 for a server, from both of its sides."""

from __future__ import annotations

import copy
import io
import sys
import threading
import weakref
from http.client import HTTPConnection, IncompleteRead

import pytest

from support import RawClient, raw

TEXT = ("Content-Type", "text/plain; charset=utf-8")
TIMEOUT = 10.0


class Answer:
    """A response as http.client reads it."""

    def __init__(self, response):
        self.status = response.status
        self.reason = response.reason
        self.fields = response.headers
        self.content = response.read()
        self.closes = response.will_close


def fetch(server, method="GET", target="/", content=None, fields=(), connection=None):
    """Send one request and return its Answer. Without a connection it opens a new one."""
    own = connection or connect(server)
    try:
        own.request(method, target, body=content, headers=dict(fields))
        return Answer(own.getresponse())
    finally:
        if connection is None:
            own.close()


def connect(server):
    return HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)


def answering(result, status="200 OK", fields=(TEXT,)):
    """Make an application that returns result, or the value of result()."""

    def application(environ, start_response):
        start_response(status, list(fields))
        return result() if callable(result) else result

    return application


class Probe:
    """An iterable that counts its close() calls and can raise errors."""

    def __init__(self, items=(b"one", b"two"), fail_at=None):
        self._items = list(items)
        self._fail_at = fail_at
        self._closes = threading.Semaphore(0)

    def __iter__(self):
        for number, item in enumerate(self._items):
            if number == self._fail_at:
                raise RuntimeError(f"item {number} failed, as the test wants it")
            yield item

    def close(self):
        self._closes.release()

    def assert_closed_once(self, server, target="/again"):
        """Wait for close(), then send another request and expect no second call."""
        assert self._closes.acquire(timeout=TIMEOUT), "expected a call of close()"
        fetch(server, target=target)
        assert not self._closes.acquire(blocking=False), "expected no second call of close()"


def with_probe(probe, status="200 OK", fields=(TEXT,), call_start_response=True):
    """Make an application that answers / with probe, and any other path with a plain text."""

    def application(environ, start_response):
        if environ["PATH_INFO"] != "/":
            start_response("200 OK", [TEXT])
            return [b"well"]
        if call_start_response:
            start_response(status, list(fields))
        return probe

    return application


def assert_still_serves(server, expected=b"well"):
    assert fetch(server, target="/again").content == expected, "expected the server to continue"


# --- environ ------------------------------------------------------------------------------------


@pytest.fixture
def seen(serve):
    """Serve an application that keeps the environ and the content: `seen(...)` requests it."""
    kept = {}

    def application(environ, start_response):
        kept["environ"] = environ
        kept["content"] = environ["wsgi.input"].read()
        start_response("200 OK", [TEXT])
        return [b"seen"]

    server = serve(application)

    def request(data=None, **options):
        kept.clear()
        if data is None:
            fetch(server, **options)
        else:
            raw(server, data)
        assert kept, "expected a call of the application"
        return kept["environ"], kept["content"]

    request.server = server
    return request


def test_environ_is_a_real_dictionary_with_the_required_keys_and_types(seen):
    environ, _ = seen(target="/path?query=1")
    assert type(environ) is dict
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/path",
        "QUERY_STRING": "query=1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_PORT": str(seen.server.port),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.run_once": False,
    }
    assert {key: environ.get(key) for key in expected} == expected
    assert environ["SERVER_NAME"], "expected a SERVER_NAME"
    for key in ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once"):
        assert environ[key] in (True, False), key


def test_every_cgi_key_is_text_that_stands_for_latin_1_bytes(seen):
    fields = {"X-One": "1", "Cookie": "a=b", "Content-Type": "text/x"}
    environ, _ = seen(method="POST", content=b"x", fields=fields)
    for key, value in environ.items():
        assert type(key) is str, key
        if "." not in key:
            assert type(value) is str, f"{key} is {value!r}"
            value.encode("latin-1")


def test_environ_names_the_client_and_the_raw_target_as_well(seen):
    environ, _ = seen(target="/a%20b?c=%64")
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["REMOTE_PORT"].isdigit()
    assert environ["SERVER_SOFTWARE"].startswith("picowsgi")
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == "/a%20b?c=%64"
    assert environ["wsgi.input_terminated"] is True


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a%20b", "/a b", ""),
        ("/%C3%A9", "/\xc3\xa9", ""),
        ("/%e9", "/\xe9", ""),
        ("/a%2Fb", "/a/b", ""),
        ("/a%252Fb", "/a%2Fb", ""),
        ("/a+b", "/a+b", ""),
        ("/%00", "/\x00", ""),
        ("//a///b/../c", "//a///b/../c", ""),
        ("/?", "/", ""),
        ("/p?a=%20&b=?/", "/p", "a=%20&b=?/"),
    ],
)
def test_path_info_is_decoded_exactly_once_and_the_query_not_at_all(seen, target, path, query):
    environ, _ = seen(target=target)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)


def test_request_fields_become_http_keys_and_repeated_ones_are_joined(seen):
    environ, _ = seen(
        b"GET / HTTP/1.1\r\nHost: example.test\r\nX-Mixed-CASE: one\r\nAccept: a\r\nAccept: b\r\n"
        b"Cookie: c=1\r\nX-Empty:\r\nCookie: d=2\r\nConnection: close\r\n\r\n"
    )
    assert environ["HTTP_HOST"] == "example.test"
    assert environ["HTTP_X_MIXED_CASE"] == "one"
    assert environ["HTTP_ACCEPT"].replace(" ", "") == "a,b"
    assert environ["HTTP_COOKIE"] == "c=1; d=2"
    assert environ["HTTP_X_EMPTY"] == ""


def test_content_type_and_content_length_have_no_http_prefix(seen):
    environ, content = seen(method="POST", content=b"12345", fields={"Content-Type": "text/x"})
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x", "5")
    assert "HTTP_CONTENT_TYPE" not in environ
    assert "HTTP_CONTENT_LENGTH" not in environ
    assert content == b"12345"


def test_a_request_without_content_has_an_empty_or_absent_length_and_an_empty_input(seen):
    environ, content = seen()
    assert environ.get("CONTENT_LENGTH", "") in ("", "0")
    assert environ.get("CONTENT_TYPE", "") == ""
    assert content == b""


def test_bytes_above_ascii_in_a_field_arrive_as_latin_1(seen):
    environ, _ = seen(
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Name: caf\xe9 \xc3\xa9\r\nConnection: close\r\n\r\n"
    )
    assert environ["HTTP_X_NAME"] == "caf\xe9 \xc3\xa9"


def test_the_application_sees_that_a_request_is_http_1_0(seen):
    environ, _ = seen(b"GET /old HTTP/1.0\r\n\r\n")
    assert (environ["SERVER_PROTOCOL"], environ["PATH_INFO"]) == ("HTTP/1.0", "/old")
    assert "HTTP_HOST" not in environ


def test_a_change_that_an_application_makes_to_its_environ_is_gone_in_the_next_request(serve):
    seen = []

    def application(environ, start_response):
        seen.append(dict(environ))
        environ["HTTP_X_INTRUDER"] = environ["PATH_INFO"] = "changed"
        environ["wsgi.url_scheme"] = "gopher"
        del environ["REQUEST_METHOD"], environ["HTTP_HOST"]
        start_response("200 OK", [TEXT])
        return [b"."]

    server = serve(application)
    connection = connect(server)
    for _ in range(3):
        fetch(server, target="/same", connection=connection)
    connection.close()
    for environ in seen:
        assert "HTTP_X_INTRUDER" not in environ
        assert environ["PATH_INFO"] == "/same"
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["REQUEST_METHOD"] == "GET"
        assert environ["HTTP_HOST"]
    assert len(seen) == 3


@pytest.mark.parametrize(
    "result",
    [lambda: [b"well"], lambda: [b"we", b"ll"], lambda: iter([b"we", b"ll"])],
    ids=["one", "list", "iterator"],
)
@pytest.mark.parametrize("spoil", ["clear", "replace the input", "replace everything"])
def test_an_application_may_leave_its_environ_in_any_state(serve, result, spoil):
    class NotToBeClosed:
        def close(self):
            raise AssertionError("PEP 3333 gives wsgi.input no close()")

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/":
            if spoil == "clear":
                environ.clear()
            elif spoil == "replace the input":
                environ["wsgi.input"] = NotToBeClosed()
            else:
                environ.update(dict.fromkeys(environ, None))
            start_response("200 OK", [TEXT, ("Content-Length", "4")])
            return result()
        start_response("200 OK", [TEXT])
        return [b"well"]

    server = serve(application)
    answer = fetch(server, "POST", content=b"content")
    assert (answer.status, answer.content) == (200, b"well")
    assert_still_serves(server)


def test_an_error_after_the_application_has_emptied_the_environ_is_still_a_500(serve):
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/":
            environ.clear()
            raise RuntimeError("as the test wants it")
        start_response("200 OK", [TEXT])
        return [b"well"]

    server = serve(application)
    assert fetch(server, "POST", content=b"content").status == 500
    assert_still_serves(server)


def test_short_content_after_the_application_has_emptied_the_environ_cuts_only_that_response(serve):
    def application(environ, start_response):
        length = "9" if environ["PATH_INFO"] == "/" else "4"
        environ.clear()
        start_response("200 OK", [TEXT, ("Content-Length", length)])
        return iter([b"we", b"ll"])

    server = serve(application)
    with pytest.raises(IncompleteRead):
        fetch(server)
    assert_still_serves(server)


def test_fields_of_one_request_do_not_appear_in_the_next_request_on_the_connection(serve):
    seen = []

    def application(environ, start_response):
        seen.append({key: value for key, value in environ.items() if key.startswith("HTTP_X")})
        start_response("200 OK", [TEXT])
        return [b"."]

    server = serve(application)
    connection = connect(server)
    for fields in ({"X-A": "1", "X-B": "2"}, {"X-A": "3"}, {}, {"X-B": "2", "X-A": "1"}):
        fetch(server, fields=fields, connection=connection)
    connection.close()
    assert seen == [
        {"HTTP_X_A": "1", "HTTP_X_B": "2"},
        {"HTTP_X_A": "3"},
        {},
        {"HTTP_X_B": "2", "HTTP_X_A": "1"},
    ]


# --- wsgi.input and wsgi.errors -----------------------------------------------------------------


LINES = b"first\nsecond\n\nlast without an end"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda source: source.read(), LINES),
        (lambda source: source.read(-1), LINES),
        (lambda source: source.read(5), b"first"),
        (lambda source: source.read(10_000), LINES),
        (lambda source: source.read(0), b""),
        (lambda source: source.read() + source.read() + source.read(1), LINES),
        (lambda source: source.readline(), b"first\n"),
        (lambda source: source.readline(3) + source.readline(10), b"first\n"),
        (lambda source: source.read(2) + source.readline() + source.read(6), b"first\nsecond"),
        (lambda source: b"|".join(source.readlines()), LINES.replace(b"\n", b"\n|")),
        (lambda source: source.readlines(1)[0], b"first\n"),
        (lambda source: b"|".join(source), LINES.replace(b"\n", b"\n|")),
        (lambda source: b"".join(iter(lambda: source.read(3), b"")), LINES),
    ],
)
def test_the_input_reads_like_a_file(serve, how, expected):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return [how(environ["wsgi.input"])]

    assert fetch(serve(application), "POST", content=LINES).content == expected


def test_content_that_the_application_leaves_unread_is_not_parsed_as_a_request(serve):
    paths = []

    def application(environ, start_response):
        paths.append(environ["PATH_INFO"])
        start_response("200 OK", [TEXT])
        return [b"."]

    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = raw(
        serve(application),
        b"POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
        b"GET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (len(hidden), hidden),
    )
    assert paths == ["/first", "/second"], answer


def test_no_request_leaves_a_trace_in_the_shared_empty_input(serve):
    seen = []

    def application(environ, start_response):
        source = environ["wsgi.input"]
        seen.append((source.tell(), source.closed, source.read(), hasattr(source, "user")))
        source.seek(10)
        source.close()
        for name in ("user", "__dict__"):
            with pytest.raises((AttributeError, TypeError)):
                setattr(source, name, {})
            with pytest.raises((AttributeError, TypeError)):
                setattr(environ["wsgi.errors"], name, {})
        for spoil in (weakref.ref, lambda one: one.__setstate__((b"left behind", 0, None))):
            with pytest.raises((AttributeError, TypeError)):
                spoil(source)
        start_response("200 OK", [TEXT])
        return [b"."]

    server = serve(application)
    for _ in range(3):
        assert fetch(server).status == 200
    assert seen == [(0, False, b"", False)] * 3


@pytest.mark.parametrize("wrap", [io.BufferedReader, io.TextIOWrapper, copy.deepcopy, iter, list])
def test_an_empty_input_is_a_binary_file(serve, wrap):
    def application(environ, start_response):
        source = environ["wsgi.input"]
        assert isinstance(source, io.IOBase)
        assert (source.readable(), source.seekable(), source.writable()) == (True, True, False)
        assert not list(wrap(source))
        assert not source.readlines()
        assert source.readinto(bytearray(5)) == 0
        with pytest.raises(io.UnsupportedOperation):
            source.write(b"x")
        with pytest.raises(io.UnsupportedOperation):
            source.fileno()
        with source as same:
            assert same.readline() == same.read(5) == b""
        start_response("200 OK", [TEXT])
        return [b"."]

    assert fetch(serve(application)).status == 200


def test_errors_is_a_text_stream(serve):
    def application(environ, start_response):
        errors = environ["wsgi.errors"]
        errors.write("one line: é €\n")
        errors.writelines(["two\n", "three\n"])
        errors.flush()
        print("four", file=errors)
        start_response("200 OK", [TEXT])
        return [b"written"]

    assert fetch(serve(application)).content == b"written"


# --- results of an application ------------------------------------------------------------------


class IteratorObject:
    """The oldest way: __iter__ returns self, and __next__ returns the items."""

    def __init__(self, items):
        self._items = list(items)

    def __iter__(self):
        return self

    def __next__(self):
        if not self._items:
            raise StopIteration
        return self._items.pop(0)


class OldSequence:
    """Has only __getitem__, which iter() accepts too."""

    def __getitem__(self, index):
        return (b"ab", b"c")[index]


ITERABLES = {
    "a list of one": (lambda: [b"abc"], b"abc"),
    "a list of many": (lambda: [b"a", b"b", b"c"], b"abc"),
    "a list of ten thousand": (lambda: [b"abc"] * 10_000, b"abc" * 10_000),
    "a tuple": (lambda: (b"a", b"bc"), b"abc"),
    "a generator": (lambda: (item for item in (b"a", b"bc")), b"abc"),
    "an iterator object": (lambda: IteratorObject([b"a", b"bc"]), b"abc"),
    "a sequence of the old kind": (OldSequence, b"abc"),
    "a map": (lambda: map(bytes, [b"a", b"bc"]), b"abc"),
    "dictionary keys": (lambda: {b"ab": 1, b"c": 2}, b"abc"),
    "an empty list": (list, b""),
    "an empty tuple": (tuple, b""),
    "an empty generator": (lambda: iter(()), b""),
    "a list of one empty item": (lambda: [b""], b""),
    "empty items around others": (lambda: [b"", b"", b"ab", b"", b"c", b""], b"abc"),
    "only empty items": (lambda: iter([b"", b"", b""]), b""),
}


@pytest.mark.parametrize("name", ITERABLES)
def test_an_iterable_of_any_type_is_sent_whole(serve, name):
    make, expected = ITERABLES[name]
    server = serve(answering(make))
    connection = connect(server)
    for _ in range(2):
        answer = fetch(server, connection=connection)
        assert (answer.status, answer.content) == (200, expected)
    connection.close()


@pytest.mark.parametrize(
    "result",
    [None, 5, "text", b"bytes", ["text"], [None], [5], [[b"nested"]], len],
    ids=repr,
)
def test_a_result_that_is_not_an_iterable_of_bytes_is_a_500(serve, result):
    def application(environ, start_response):
        if environ["PATH_INFO"] != "/":
            start_response("200 OK", [TEXT])
            return [b"well"]
        start_response("200 OK", [TEXT])
        return result

    server = serve(application)
    assert fetch(server).status == 500
    assert_still_serves(server)


def test_text_after_bytes_cuts_the_response_visibly(serve):
    server = serve(with_probe([b"sent", "text"]))
    with pytest.raises(IncompleteRead):
        fetch(server)
    assert_still_serves(server)


def test_an_application_may_be_any_callable(serve):
    class Application:
        def __init__(self, environ, start_response):
            self._environ = environ
            self._start_response = start_response

        def __iter__(self):
            self._start_response("200 OK", [TEXT])
            yield self._environ["REQUEST_METHOD"].encode()

    class Callable:
        def method(self, environ, start_response):
            start_response("200 OK", [TEXT])
            return [environ["REQUEST_METHOD"].encode()]

        __call__ = method

    assert fetch(serve(Application)).content == b"GET"
    assert fetch(serve(Callable())).content == b"GET"
    assert fetch(serve(Callable().method)).content == b"GET"


def test_a_generator_function_may_call_start_response_at_its_first_item(serve):
    def application(environ, start_response):
        start_response("201 Created", [TEXT])
        yield b"made"

    answer = fetch(serve(application))
    assert (answer.status, answer.reason, answer.content) == (201, "Created", b"made")


def test_the_server_passes_positional_arguments(serve):
    def application(first, second, /):
        second("200 OK", [TEXT])
        return [first["REQUEST_METHOD"].encode()]

    assert fetch(serve(application)).content == b"GET"


# --- start_response -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"timeout_request": 30}], ids=["plain", "interruptible"])
def test_start_response_takes_keywords_as_in_other_servers(serve, options):
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/all":
            start_response(status="201 Created", headers=[TEXT], exc_info=None)
            return [b"made"]
        start_response("200 OK", [("X-First", "1")])
        try:
            raise RuntimeError("as the test wants it")
        except RuntimeError:
            start_response("502 Bad Gateway", [TEXT], exc_info=sys.exc_info())
        return [b"replaced"]

    server = serve(application, **options)
    answer = fetch(server, target="/all")
    assert (answer.status, answer.content) == (201, b"made")
    answer = fetch(server)
    assert (answer.status, answer.content) == (502, b"replaced")
    assert "X-First" not in answer.fields


def test_an_application_that_never_calls_start_response_gets_a_500(serve):
    for result in ([b"content"], [], iter([b"content"]), iter(())):
        server = serve(with_probe(result, call_start_response=False))
        answer = fetch(server)
        assert answer.status == 500, result
        assert b"content" not in answer.content
        assert_still_serves(server)


def test_an_item_before_start_response_is_a_500(serve):
    def application(environ, start_response):
        yield b"too early"
        start_response("200 OK", [TEXT])

    answer = fetch(serve(application))
    assert answer.status == 500
    assert b"too early" not in answer.content


def test_start_response_a_second_time_without_exc_info_is_an_error(serve):
    raised = []

    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("X-Call", "first")])
        try:
            start_response("404 Not Found", [TEXT, ("X-Call", "second")])
        except Exception as error:
            raised.append(error)
            raise
        return [b"never"]

    assert fetch(serve(application)).status == 500
    assert len(raised) == 1, "expected the second call to raise"


def test_an_application_that_catches_the_error_of_a_second_start_response_keeps_the_first(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("X-Call", "first")])
        try:
            start_response("404 Not Found", [TEXT, ("X-Call", "second")])
        except Exception:
            return [b"survived"]
        return [b"no error"]

    answer = fetch(serve(application))
    assert (answer.status, answer.content) == (200, b"survived")
    assert answer.fields.get_all("X-Call") == ["first"]


def test_exc_info_before_the_head_was_sent_replaces_status_and_fields(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT, ("X-First", "1"), ("Content-Length", "3")])
        try:
            raise ValueError("as the test wants it")
        except ValueError:
            start_response("503 Sorry", [TEXT, ("X-Second", "2")], sys.exc_info())
        return [b"replaced"]

    answer = fetch(serve(application))
    assert (answer.status, answer.reason, answer.content) == (503, "Sorry", b"replaced")
    assert answer.fields["X-Second"] == "2"
    assert "X-First" not in answer.fields
    assert answer.fields["Content-Length"] == "8"


def test_exc_info_may_come_with_the_first_call(serve):
    def application(environ, start_response):
        try:
            raise ValueError("as the test wants it")
        except ValueError:
            start_response("500 Mine", [TEXT], sys.exc_info())
        return [b"my own page"]

    answer = fetch(serve(application))
    assert (answer.status, answer.reason, answer.content) == (500, "Mine", b"my own page")


def test_an_empty_exc_info_counts_as_none(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT], None)
        return [b"well"]

    assert fetch(serve(application)).content == b"well"


def test_exc_info_after_the_head_was_sent_raises_that_exception_again(serve):
    caught = []

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"sent"
        problem = ValueError("as the test wants it")
        try:
            try:
                raise problem
            except ValueError:
                start_response("500 Too Late", [TEXT], sys.exc_info())
        except ValueError as error:
            caught.append(error is problem)
            raise
        yield b"never"

    server = serve(application)
    connection = connect(server)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises(IncompleteRead) as cut:
        response.read()
    connection.close()
    assert cut.value.partial == b"sent"
    assert caught == [True], "expected the exception of exc_info itself"


def test_the_head_is_sent_with_the_first_item_that_is_not_empty(serve):
    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b""
        yield b""
        try:
            raise ValueError("as the test wants it")
        except ValueError:
            start_response("502 Changed", [TEXT], sys.exc_info())
        yield b"changed"

    answer = fetch(serve(application))
    assert (answer.status, answer.reason, answer.content) == (502, "Changed", b"changed")


def test_the_server_sends_an_item_before_it_asks_for_the_next_one(serve):
    arrived = threading.Event()

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"first"
        yield b"second" if arrived.wait(TIMEOUT) else b"held back"

    connection = connect(serve(application))
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.read(5) == b"first"
    arrived.set()
    assert response.read() == b"second"
    connection.close()


def test_later_changes_to_the_list_of_fields_are_sent_or_ignored_as_a_whole(serve):
    def application(environ, start_response):
        fields = [TEXT, ("X-Kept", "1")]
        start_response("200 OK", fields)
        fields.append(("X-Bad", "a\r\nX-Smuggled: 1"))
        return [b"well"]

    answer = raw(serve(application), b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"X-Smuggled: 1" not in answer.split(b"\r\n"), answer


# --- write() ------------------------------------------------------------------------------------


def test_write_sends_before_it_returns_and_the_iterable_follows(serve):
    arrived = threading.Event()

    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        write(b"first ")
        write(b"second " if arrived.wait(TIMEOUT) else b"held back ")
        return [b"third"]

    connection = connect(serve(application))
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.read(6) == b"first "
    arrived.set()
    assert response.read() == b"second third"
    connection.close()


def test_write_alone_is_a_whole_response(serve):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT, ("Content-Length", "6")])
        write(b"abc")
        write(b"")
        write(b"def")
        return []

    server = serve(application)
    connection = connect(server)
    for _ in range(2):
        assert fetch(server, connection=connection).content == b"abcdef"
    connection.close()


def test_write_refuses_objects_that_are_not_bytes(serve):
    raised = []

    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        for wrong in ("text", None, 5, [b"x"]):
            try:
                write(wrong)
            except Exception:
                raised.append(wrong)
        return [b"well"]

    assert fetch(serve(application)).content == b"well"
    assert raised == ["text", None, 5, [b"x"]]


def test_exc_info_after_write_raises(serve):
    def application(environ, start_response):
        write = start_response("200 OK", [TEXT])
        write(b"sent ")
        try:
            raise ValueError("as the test wants it")
        except ValueError:
            try:
                start_response("500 Too Late", [TEXT], sys.exc_info())
            except ValueError:
                return [b"too late"]
        return [b"no error"]

    answer = fetch(serve(application))
    assert (answer.status, answer.content) == (200, b"sent too late")


# --- close() ------------------------------------------------------------------------------------


def test_close_is_called_once_after_a_whole_response(serve):
    for method in ("GET", "HEAD", "POST"):
        probe = Probe()
        server = serve(with_probe(probe))
        fetch(server, method)
        probe.assert_closed_once(server)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_close_is_called_once_when_there_is_no_content(serve, status):
    probe = Probe([])
    server = serve(with_probe(probe, status, fields=()))
    fetch(server)
    probe.assert_closed_once(server)


@pytest.mark.parametrize("fail_at", [0, 1, 5])
def test_close_is_called_once_when_an_item_raises(serve, fail_at):
    probe = Probe([b"item"] * 6, fail_at)
    server = serve(with_probe(probe))
    if fail_at == 0:
        assert fetch(server).status == 500
    else:
        with pytest.raises(IncompleteRead):
            fetch(server)
    probe.assert_closed_once(server)
    assert_still_serves(server)


def test_close_is_called_once_when_an_item_is_not_bytes(serve):
    for items in (["text"], [b"item", None]):
        probe = Probe(items)
        server = serve(with_probe(probe))
        raw(server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        probe.assert_closed_once(server)


def test_close_is_called_once_when_start_response_was_never_called(serve):
    probe = Probe()
    server = serve(with_probe(probe, call_start_response=False))
    assert fetch(server).status == 500
    probe.assert_closed_once(server)


def test_close_is_called_once_when_the_head_is_refused(serve):
    probe = Probe()
    server = serve(with_probe(probe, fields=[TEXT, ("X-Bad", "a\nb")]))
    assert fetch(server).status == 500
    # start_response itself may refuse the head. It then raises in the application before that
    # returns the iterable, so there is nothing to close.
    assert_still_serves(server)


def test_close_is_called_once_when_the_content_does_not_fit_its_length(serve):
    for length in ("2", "100"):
        probe = Probe([b"item"] * 4)
        server = serve(with_probe(probe, fields=[TEXT, ("Content-Length", length)]))
        raw(server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        probe.assert_closed_once(server)


def test_close_is_called_once_when_the_client_has_disconnected(serve):
    gone = threading.Event()

    class LongProbe(Probe):
        def __iter__(self):
            yield b"x"
            gone.wait(TIMEOUT)
            for _ in range(1_000):
                yield b"x" * 100_000

    probe = LongProbe()
    server = serve(with_probe(probe))
    with RawClient(server.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not client.is_over()
        client.reset()
    gone.set()
    probe.assert_closed_once(server)


def test_the_server_survives_an_error_in_close_after_the_response(serve):
    class Stubborn(list):
        def close(self):
            raise RuntimeError("close failed, as the test wants it")

    server = serve(with_probe(Stubborn([b"content"])))
    assert fetch(server).content == b"content"
    assert_still_serves(server)


def test_a_generator_is_closed_when_the_response_ends_early(serve):
    ended = threading.Event()

    def items():
        try:
            yield b"item"
            yield "text"
            yield b"never"
        finally:
            ended.set()

    server = serve(with_probe(items()))
    with pytest.raises(IncompleteRead):
        fetch(server)
    assert ended.wait(TIMEOUT), "expected the finally of the generator to run"


# --- wsgi.file_wrapper --------------------------------------------------------------------------


FILE = bytes(range(256)) * 2_000


class Watched:
    """A file-like object with only read() and close(), which counts the closes."""

    def __init__(self, file):
        self._file = file
        self.closes = 0
        self.read = file.read

    def close(self):
        self.closes += 1
        self._file.close()


def sending(make_file, fields=(TEXT,)):
    """Make an application that answers with the file wrapper around make_file()."""

    def application(environ, start_response):
        start_response("200 OK", list(fields))
        return environ["wsgi.file_wrapper"](make_file(), 1_000)

    return application


@pytest.fixture
def file(tmp_path):
    """Open the same real file again and again; all have to be closed when the server ends.

    A test names it before `serve`, so that the server has ended when this looks.
    """
    path = tmp_path / "file"
    path.write_bytes(FILE)

    def open_it():
        open_it.opened.append(path.open("rb"))
        return open_it.opened[-1]

    open_it.opened = []
    yield open_it
    assert all(one.closed for one in open_it.opened), "expected the server to close the file"


def test_the_file_wrapper_sends_a_real_file(file, serve):
    server = serve(sending(file))
    connection = connect(server)
    for _ in range(2):
        answer = fetch(server, connection=connection)
        assert answer.content == FILE
        assert answer.fields.get_all("Content-Length") == [str(len(FILE))]
    head = fetch(server, "HEAD", connection=connection)
    assert (head.content, head.fields["Content-Length"]) == (b"", str(len(FILE)))
    connection.close()


def test_the_file_wrapper_begins_at_the_position_of_the_file(file, serve):
    def from_the_middle():
        one = file()
        one.seek(100_000)
        return one

    server = serve(sending(from_the_middle))
    assert fetch(server).content == FILE[100_000:]


def test_the_file_wrapper_keeps_to_the_content_length(file, serve):
    server = serve(sending(file, [TEXT, ("Content-Length", "1000")]))
    assert fetch(server).content == FILE[:1_000]


def test_the_file_wrapper_reads_an_object_that_is_not_a_real_file(serve):
    watched = []

    def make():
        watched.append(Watched(io.BytesIO(FILE)))
        return watched[-1]

    server = serve(sending(make))
    for method, expected in (("GET", FILE), ("HEAD", b""), ("GET", FILE)):
        assert fetch(server, method).content == expected
    server.stop()
    assert [one.closes for one in watched] == [1, 1, 1]


def test_the_file_wrapper_is_an_iterator_that_middleware_can_take_apart(file, serve):
    class Chained:
        """Closes the iterator, as Werkzeug does in its response to a range."""

        def __init__(self, content):
            self._content = iter(content)

        def __iter__(self):
            yield next(self._content)[:10]
            yield from self._content

        def close(self):
            if hasattr(self._content, "close"):
                self._content.close()

    def application(environ, start_response):
        start_response("200 OK", [TEXT])
        return Chained(environ["wsgi.file_wrapper"](file(), 1_000))

    assert fetch(serve(application)).content == FILE[:10] + FILE[1_000:]


# --- errors of the application ------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("as the test wants it"), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("where", ["call", "call after start_response", "first item", "iter"])
def test_an_error_before_the_head_is_a_500_without_details(serve, where, error):
    class Broken:
        def __iter__(self):
            raise error

    def first_item():
        raise error
        yield b"never"

    def application(environ, start_response):
        if environ["PATH_INFO"] != "/":
            start_response("200 OK", [TEXT])
            return [b"well"]
        if where == "call":
            raise error
        start_response("200 OK", [TEXT, ("X-Secret", "1")])
        if where == "call after start_response":
            raise error
        return first_item() if where == "first item" else Broken()

    server = serve(application)
    answer = fetch(server)
    assert answer.status == 500
    assert "X-Secret" not in answer.fields
    assert b"as the test wants it" not in answer.content
    assert b"Traceback" not in answer.content
    assert_still_serves(server)


def test_an_error_after_the_head_cuts_the_connection(serve):
    server = serve(with_probe(Probe([b"one", b"two", b"three"], fail_at=2)))
    answer = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /again HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"two" in answer
    assert not answer.endswith(b"0\r\n\r\n"), (
        "expected the client to notice that content is missing"
    )
    assert b"well" not in answer, "expected nothing after a response that was cut"


# --- the length of the content, and how it ends -------------------------------------------------


@pytest.mark.parametrize("result", [[b"abc"], (b"abc",), [b""]], ids=repr)
def test_a_single_item_gets_a_content_length(serve, result):
    answer = fetch(serve(answering(result)))
    assert answer.fields.get_all("Content-Length") == [str(len(result[0]))]
    assert "Transfer-Encoding" not in answer.fields
    assert not answer.closes


def test_content_of_unknown_length_is_chunked_and_the_connection_stays_open(serve):
    answer = fetch(serve(answering(lambda: iter([b"abc", b"def"]))))
    assert answer.fields.get_all("Transfer-Encoding") == ["chunked"]
    assert "Content-Length" not in answer.fields
    assert (answer.content, answer.closes) == (b"abcdef", False)


def test_chunks_are_framed_as_rfc_9112_says_and_only_the_last_is_empty(serve):
    result = [b"", b"a" * 10, b"", b"b" * 300, b""]
    answer = raw(
        serve(answering(lambda: iter(result))),
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    content = answer.partition(b"\r\n\r\n")[2].lower()
    assert content == b"a\r\n" + b"a" * 10 + b"\r\n12c\r\n" + b"b" * 300 + b"\r\n0\r\n\r\n"


def test_the_content_length_of_the_application_is_kept(serve):
    fields = [TEXT, ("content-length", "6")]
    answer = fetch(serve(answering(lambda: iter([b"abc", b"def"]), fields=fields)))
    assert answer.fields.get_all("Content-Length") == ["6"]
    assert "Transfer-Encoding" not in answer.fields
    assert answer.content == b"abcdef"


def test_more_content_than_announced_is_cut_and_the_connection_closed(serve):
    for make in (lambda: [b"abcdef"], lambda: iter([b"ab", b"cd", b"ef"])):
        server = serve(answering(make, fields=[TEXT, ("Content-Length", "3")]))
        answer = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        assert answer.count(b"HTTP/1.1 200 OK") == 1, "expected the connection to end"
        assert answer.partition(b"\r\n\r\n")[2] == b"abc"


def test_less_content_than_announced_closes_the_connection(serve):
    for make in (lambda: [b"abc"], lambda: iter([b"a", b"bc"]), list):
        server = serve(answering(make, fields=[TEXT, ("Content-Length", "5")]))
        with pytest.raises(IncompleteRead):
            fetch(server)
        answer = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        assert answer.count(b"HTTP/1.1") <= 1, "expected no next response in the gap"


@pytest.mark.parametrize("length", ["-1", "3x", "", "1,1", "0x3", " ", "99999999999999999999"])
def test_an_invalid_content_length_is_a_500(serve, length):
    server = serve(answering([b"abc"], fields=[TEXT, ("Content-Length", length)]))
    assert fetch(server).status == 500


@pytest.mark.parametrize("make", [lambda: [b"abc"], lambda: iter([b"ab", b"c"])], ids=["1", "n"])
def test_head_has_the_fields_of_get_and_no_content(serve, make):
    server = serve(answering(make))
    get = fetch(server)
    answer = raw(
        server,
        b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
        b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2, answer
    assert answer.endswith(b"\r\n\r\n")
    assert b"\r\n\r\nHTTP/1.1 200" in answer
    assert b"abc" not in answer
    assert b"ab\r\n" not in answer
    assert fetch(server, "HEAD").fields.get("Content-Length") == get.fields.get("Content-Length")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_204_and_304_have_no_content_no_matter_what_the_application_returns(serve, status):
    server = serve(answering(lambda: iter([b"con", b"tent"]), status, fields=[("X-Kept", "1")]))
    answer = raw(
        server,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    assert answer.count(b"HTTP/1.1 " + status.encode()) == 2, answer
    assert b"con" not in answer.replace(b"Content", b"").replace(b"connection: close", b"")
    assert b"transfer-encoding" not in answer.lower()
    assert answer.count(b"X-Kept: 1") == 2


def test_204_carries_no_content_length(serve):
    fields = [("Content-Length", "0")]
    answer = fetch(serve(answering([], "204 No Content", fields)))
    assert "Content-Length" not in answer.fields, (
        "expected no Content-Length (RFC 9110, section 8.6)"
    )


def test_http_1_0_gets_no_chunks_and_the_close_ends_the_response(serve):
    answer = raw(serve(answering(lambda: iter([b"abc", b"def"]))), b"GET / HTTP/1.0\r\n\r\n")
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert content == b"abcdef"


def test_http_1_0_keeps_the_connection_only_when_asked_and_with_a_known_length(serve):
    server = serve(answering([b"abc"]))
    asking = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    both = raw(server, asking + b"GET / HTTP/1.0\r\n\r\n")
    assert both.count(b"abc") == 2
    assert b"connection: keep-alive" in both.lower()
    assert raw(server, b"GET / HTTP/1.0\r\n\r\n" * 2).count(b"abc") == 1


def test_the_connection_is_closed_when_the_client_asks(serve):
    server = serve(answering([b"abc"]))
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: %b\r\n\r\n"
    for value in (b"close", b"CLOSE", b"x, Close"):
        answer = raw(server, request % value * 2)
        assert answer.count(b"abc") == 1, value
        assert b"connection: close" in answer.lower(), value


# --- the response head --------------------------------------------------------------------------


def test_headers_of_one_client_never_reach_another(serve):
    headers = [["Content-Type", "text/plain"], ["Set-Cookie", ""]]

    def application(environ, start_response):
        path, user = environ["PATH_INFO"], environ["QUERY_STRING"]
        if path == "/changed":
            headers[1][1] = user
            start_response("200 OK", headers)
        elif path == "/generated":
            start_response("200 OK", (pair for pair in [("Set-Cookie", user)]))
        else:
            start_response("200 OK", [])
        return [user.encode()]

    server = serve(application, threads=1)
    for path in ("/changed", "/generated"):
        for user in ("alice", "bob", "carol"):
            assert fetch(server, target=f"{path}?{user}").fields["Set-Cookie"] == user
            assert "Set-Cookie" not in fetch(server, target="/none").fields


@pytest.mark.parametrize("status", ["200", "299"])
def test_a_status_without_a_reason_gets_one(serve, status):
    answer = fetch(serve(answering([b"."], status)))
    assert (answer.status, answer.content) == (int(status), b".")
    assert answer.reason


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints"])
def test_an_interim_status_is_a_500_and_a_line_in_the_log(serve, status, caplog):
    server = serve(with_probe([b"content"], status))
    assert fetch(server).status == 500
    assert f"the status {status!r} is interim" in caplog.text
    assert "GET /" in caplog.text
    assert_still_serves(server)


def test_status_reason_and_fields_are_sent_as_given_in_order_with_repeats(serve):
    fields = [TEXT, ("Set-Cookie", "a=1"), ("X-Mixed-CASE", "v"), ("Set-Cookie", "b=2; Path=/")]
    server = serve(answering([b"."], "418 I'm a teapot, short and stout", fields))
    answer = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 418 I'm a teapot, short and stout"
    given = [f"{name}: {value}".encode() for name, value in fields]
    assert [line for line in lines if line in given] == given


def test_date_and_server_are_added_once_and_only_when_missing(serve):
    answer = fetch(serve(answering([b"."])))
    assert len(answer.fields.get_all("Date")) == len(answer.fields.get_all("Server")) == 1
    assert answer.fields["Server"].startswith("picowsgi")
    own = [TEXT, ("date", "Mon, 01 Jan 2001 00:00:00 GMT"), ("SERVER", "mine")]
    answer = fetch(serve(answering([b"."], fields=own)))
    assert answer.fields.get_all("Date") == ["Mon, 01 Jan 2001 00:00:00 GMT"]
    assert answer.fields.get_all("Server") == ["mine"]


def test_latin_1_text_in_a_field_is_sent_as_those_bytes(serve):
    server = serve(answering([b"."], fields=[TEXT, ("X-Name", "caf\xe9")]))
    answer = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"X-Name: caf\xe9\r\n" in answer


BREAKS = ["\r\nX-Smuggled: 1", "\nX-Smuggled: 1", "\rX-Smuggled: 1", "\x00X-Smuggled: 1"]


@pytest.mark.parametrize("text", [*BREAKS, "\r\n\r\nsmuggled", "\r\n", "\n", "\x00"], ids=repr)
@pytest.mark.parametrize("place", ["value", "name", "status"])
def test_a_line_break_or_nul_in_the_head_is_a_500_and_none_is_sent(serve, place, text):
    status, name, value = "200 OK", "X-Name", "value"
    if place == "value":
        value += text
    elif place == "name":
        name += text
    else:
        status += text
    server = serve(with_probe([b"content"], status, [TEXT, (name, value)]))
    answer = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 "), answer
    assert b"smuggled" not in answer.lower()
    assert b"X-Name" not in answer
    assert b"content\r\n" not in answer
    assert not answer.endswith(b"content")
    assert_still_serves(server)


@pytest.mark.parametrize(
    "status",
    [
        *["", "OK", "200OK", "20 OK", "2000 OK", " 200 OK", "abc OK", "-20 OK", "2e2 OK"],
        *["\u0662\u0660\u0660 OK", "200 \u20ac", "200\tOK", 200, b"200 OK", None],
    ],
    ids=repr,
)
def test_an_invalid_status_is_a_500(serve, status):
    server = serve(with_probe([b"content"], status))
    answer = fetch(server)
    assert answer.status == 500
    assert answer.content != b"content"
    assert_still_serves(server)


@pytest.mark.parametrize(
    "field",
    [
        ("X-Number", 5),
        ("X-None", None),
        ("X-Bytes", b"value"),
        (b"X-Bytes", "value"),
        (5, "value"),
        ("X-Far", "\u20ac"),
        ("", "value"),
        ("X Blank", "value"),
        ("X-Colon:", "value"),
        ("X-\xe9", "value"),
        ("X-Control", "a\x01b"),
        ("X-Delete", "a\x7fb"),
        ("X-Alone",),
        ("X-Three", "a", "b"),
        None,
    ],
    ids=repr,
)
def test_an_invalid_field_is_a_500(serve, field):
    server = serve(with_probe([b"content"], fields=[TEXT, field]))
    answer = fetch(server)
    assert answer.status == 500
    assert answer.content != b"content"
    assert_still_serves(server)


@pytest.mark.parametrize("fields", [None, 5, "text", {"A": "b"}], ids=repr)
def test_fields_that_are_not_a_list_are_a_500(serve, fields):
    def application(environ, start_response):
        start_response("200 OK", fields)
        return [b"content"]

    assert fetch(serve(application)).status == 500


HOP_BY_HOP = [
    ("Connection", "keep-alive"),
    ("Keep-Alive", "timeout=999"),
    ("Proxy-Authenticate", "Basic"),
    ("Proxy-Authorization", "Basic x"),
    ("TE", "trailers"),
    ("Trailer", "X-After"),
    ("Trailers", "X-After"),
    ("Transfer-Encoding", "chunked"),
    ("Upgrade", "h2c"),
]


@pytest.mark.parametrize("field", HOP_BY_HOP, ids=lambda field: field[0])
def test_a_hop_by_hop_field_of_the_application_is_not_sent(serve, field):
    server = serve(answering([b"content"], fields=[TEXT, field]))
    answer = fetch(server)
    assert (answer.status, answer.content) == (200, b"content")
    assert answer.fields.get(field[0]) != field[1]


def test_the_server_obeys_connection_close_of_the_application(serve):
    server = serve(answering([b"content"], fields=[TEXT, ("connection", "Close")]))
    answer = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    assert answer.count(b"content") == 1 + answer.count(b"content-length")
    assert answer.lower().count(b"\r\nconnection: close\r\n") == 1
