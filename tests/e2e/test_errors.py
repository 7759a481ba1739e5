"""An error ends only its own request, and neither its thread nor the server."""

from __future__ import annotations

import contextlib
import logging
import os
import socketserver
import threading

import pytest

from picowsgi import core, errors
from picowsgi.simple_server import WSGIRequestHandler, WSGIServer, make_server
from picowsgi.wsgi import environ as environs
from picowsgi.wsgi.environ import EnvironMaker
from picowsgi.wsgi.gateway import Gateway
from picowsgi.wsgi.response import Response
from support import (
    PYPY,
    TIMEOUT,
    RawClient,
    descriptors_at_rest,
    exchange,
    ping,
    raw,
    site,
    wait_until,
)

TEXT = ("Content-Type", "text/plain")
FAIL = b"GET /fail HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n"


def failing(fail):
    """An application whose /fail calls `fail(environ, start_response)`."""
    return site(fail)


def assert_fails_alone(server, count=3):
    """Expect a 500 for /fail several times, and that other requests are served between them."""
    for _ in range(count):
        (answer,) = exchange(server, FAIL)
        assert answer.status == 500
        ping(server)


class Unshowable:
    """Has no text, no truth value and no length."""

    def __str__(self):
        raise ValueError("no text")

    __repr__ = __format__ = __bool__ = __len__ = __eq__ = lambda *_: Unshowable.__str__(None)
    __hash__ = None


class SpoiltText(str):
    """Text whose methods raise errors."""

    __slots__ = ()
    __str__ = __repr__ = __format__ = encode = __bool__ = Unshowable.__str__


# --- objects that cannot be printed --------------------------------------------------------------


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("key", ["REQUEST_URI", "REQUEST_METHOD", "PATH_INFO", "HTTP_ACCEPT"])
@pytest.mark.parametrize("value", [Unshowable(), SpoiltText("x"), None, 5, b"x"], ids=type)
def test_an_environ_that_cannot_be_printed_is_a_500(serve, caplog, key, value, debug, monkeypatch):
    monkeypatch.setattr("picowsgi.app.middleware.find_spec", lambda name: None)

    def fail(environ, start_response):
        environ[key] = value
        raise RuntimeError("as the test wants it")

    assert_fails_alone(serve(failing(fail), threads=1, debug=debug))
    assert caplog.text.count("RuntimeError: as the test wants it") >= 3


def broken_errors():
    class NoTextError(Exception):
        __str__ = __repr__ = Unshowable.__str__

    class NoTracebackError(Exception):
        @property
        def __traceback__(self):
            raise RuntimeError("no traceback")

    class Meta(type):
        @property
        def __module__(cls):
            raise RuntimeError("no module")

    class NoModuleError(Exception, metaclass=Meta):
        pass

    class OwnBase(BaseException):
        __str__ = Unshowable.__str__

    looped = RuntimeError("looped")
    looped.__cause__ = RuntimeError("the other end")
    looped.__cause__.__cause__ = looped
    noted = RuntimeError("noted")
    noted.__notes__ = Unshowable()
    return [NoTextError(), NoTracebackError(), NoModuleError(), OwnBase(), looped, noted]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("where", ["call", "item", "close"])
@pytest.mark.parametrize("error", broken_errors(), ids=lambda error: type(error).__name__)
def test_an_error_that_cannot_be_printed_is_a_500(serve, monkeypatch, error, where, debug):
    monkeypatch.setattr("picowsgi.app.middleware.find_spec", lambda name: None)

    class Items:
        def __iter__(self):
            if where == "item":
                raise error
            return iter(["not bytes"])

        def close(self):
            if where == "close":
                raise error

    def fail(environ, start_response):
        if where == "call":
            raise error
        start_response("200 OK", [TEXT])
        return Items()

    assert_fails_alone(serve(failing(fail), threads=1, debug=debug))


# --- an application without memory or stack, or one that exits -----------------------------------


def recurse(environ, start_response):
    return recurse(environ, start_response)


def raising(error):
    def fail(environ, start_response):
        raise error

    return fail


@pytest.mark.parametrize(
    "fail",
    [
        recurse,
        raising(MemoryError()),
        raising(KeyboardInterrupt()),
        raising(SystemExit(3)),
        raising(GeneratorExit()),
        raising(StopIteration()),
        raising(BaseException("base")),
        raising(errors.ClientGoneError()),
        raising(errors.RequestTimeoutError()),
    ],
    ids=["recursion", "memory", "interrupt", "exit", "generator", "stop", "base", "gone", "late"],
)
def test_any_exception_of_an_application_is_a_500(serve, fail):
    assert_fails_alone(serve(failing(fail), threads=1))


def test_any_exception_after_the_head_cuts_the_response(serve):
    def fail(environ, start_response):
        start_response("200 OK", [TEXT])
        yield b"begun"
        raise kinds[int(environ["QUERY_STRING"])]

    kinds = [MemoryError(), KeyboardInterrupt(), SystemExit(3), *broken_errors()]
    server = serve(failing(fail), threads=1)
    for number in range(len(kinds)):
        answer = raw(server, f"GET /fail?{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert answer.endswith(b"begun\r\n")
        ping(server)


# --- a log that is broken ------------------------------------------------------------------------


class BrokenHandler(logging.Handler):
    def __init__(self, error):
        super().__init__()
        self.error = error
        self.called = threading.Event()

    def emit(self, _record):
        self.called.set()
        raise self.error


@pytest.fixture
def logger():
    """The logger of picowsgi, with only the handlers of this test."""
    logger = logging.getLogger("picowsgi")
    before = logger.handlers[:], logger.propagate
    logger.propagate = False
    yield logger
    logger.handlers[:], logger.propagate = before


LOG_ERRORS = [RuntimeError("broken"), OSError(28, "full"), MemoryError(), SystemExit(1)]


@pytest.mark.parametrize("error", [*LOG_ERRORS, KeyboardInterrupt()], ids=repr)
def test_a_log_handler_that_fails_ends_nothing(serve, logger, error, capfd):
    def fail(environ, start_response):
        if environ["QUERY_STRING"] == "short":
            start_response("200 OK", [TEXT, ("Content-Length", "9"), ("Connection", "close")])
            return [b"short"]
        raise RuntimeError("as the test wants it")

    handler = BrokenHandler(error)
    logger.addHandler(handler)
    server = serve(failing(fail), threads=1)
    assert_fails_alone(server)
    assert handler.called.is_set()
    assert raw(server, FAIL.replace(b"/fail", b"/fail?short")).endswith(b"short")
    ping(server)
    lost = "picowsgi: error: error in the application: GET /fail: RuntimeError (logging it"
    assert lost in capfd.readouterr().err


@pytest.mark.parametrize("error", [*LOG_ERRORS, KeyboardInterrupt()], ids=repr)
def test_the_watcher_survives_a_broken_log(serve, logger, error, monkeypatch):
    """It logs requests that the application never saw."""
    handler = BrokenHandler(error)
    logger.addHandler(handler)
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    server = serve(site(hello), threads=1, body_memory=1024)
    for _ in range(3):
        handler.called.clear()
        assert exchange(server, LARGE_POST)[0].status == 507
        assert handler.called.wait(TIMEOUT)
        ping(server)


def test_the_server_serves_after_an_error_of_its_own_and_a_broken_log(serve, logger, monkeypatch):
    logger.addHandler(BrokenHandler(SystemExit(1)))
    broken = Broken(monkeypatch, EnvironMaker, "make", MemoryError())
    server = serve(site(hello), threads=1)
    broken.expect_500(server)
    ping(server)


STREAMS = {
    "none": "sys.stderr = None",
    "closed": "sys.stderr.close()",
    "no stream": "sys.stderr = object()",
    "full": "sys.stderr = open('/dev/full', 'w', buffering=1)",
    "a pipe without a reader": """
reading, writing = os.pipe()
os.close(reading)
sys.stderr = open(writing, 'w')""",
}


@pytest.mark.parametrize("spoil", STREAMS.values(), ids=STREAMS)
def test_a_standard_error_that_cannot_be_written_to_ends_nothing(command, tmp_path, spoil):
    (tmp_path / "app.py").write_text(f"""
import os, sys
spoilt = []

def app(environ, start_response):
    if environ["PATH_INFO"] == "/spoil":
        spoilt.append(sys.stderr)
{_indent(spoil)}
    elif environ["PATH_INFO"] == "/errors":
        environ["wsgi.errors"].write("to the log")
        environ["wsgi.errors"].writelines(["to", "the log"])
        environ["wsgi.errors"].flush()
    elif environ["PATH_INFO"] == "/fail":
        raise RuntimeError("as the test wants it")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"pong"]
""")
    server = command(
        "-m", "picowsgi", "--port", "0", "--threads", "1", "app:app", directory=tmp_path
    )
    for path, status in [("/spoil", 200), ("/fail", 500), ("/ping", 200), ("/fail", 500)]:
        request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"
        assert exchange(server, request.encode())[0].status == status
    if "object()" not in spoil:
        assert exchange(server, b"GET /errors HTTP/1.1\r\nHost: a\r\n\r\n")[0].status == 200
    assert server.stop() in (0, 120)  # 120: Python itself could not flush the stream at its end


def _indent(text):
    return "\n".join(f"        {line}" for line in text.strip().splitlines())


# --- errors of the server itself -----------------------------------------------------------------


def hello(environ, start_response):
    start_response("200 OK", [TEXT])
    return [b"hello"]


class Broken:
    """A function of picowsgi that raises an error once, when the test asks for it.

    `after`: it raises after its work; or a function that decides that from its result.
    """

    def __init__(self, monkeypatch, owner, name, error, after=None):
        original = getattr(owner, name)
        self._due = threading.Event()
        self.error = error

        def function(*arguments, **keywords):
            due = self._due.is_set()
            if due and not after:
                self._due.clear()
                raise self.error
            result = original(*arguments, **keywords)
            if due and (after is True or after(result)):
                self._due.clear()
                del result
                raise self.error
            return result

        if isinstance(owner, type) and not hasattr(original, "__code__"):
            function = staticmethod(function)
        monkeypatch.setattr(owner, name, function)

    def break_next(self):
        self._due.set()

    def expect_500(self, server, request=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        ping(server)
        self.break_next()
        (answer,) = exchange(server, request)
        assert not self._due.is_set()
        assert answer.status == 500


PART = bytes(range(256)) * 4096
LARGE_POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65536
FAULTS = [
    MemoryError(),
    RecursionError(),
    RuntimeError("a fault"),
    SystemExit(1),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", FAULTS, ids=repr)
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (EnvironMaker, "make"),
        (Gateway, "serve"),
        (Gateway, "_serve_whole"),
        (Response, "__init__"),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_an_error_of_the_server_before_the_head_is_a_500(
    serve, monkeypatch, caplog, owner, name, error
):
    kept = []

    def keep(environ, start_response):
        kept.append(start_response)  # so that the next request has another response
        return site(hello)(environ, start_response)

    broken = Broken(monkeypatch, owner, name, error)
    server = serve(keep, threads=1)
    for _ in range(3):
        broken.expect_500(server)
        ping(server)
    assert caplog.text.count("an internal error ended a request") == 3


@pytest.mark.parametrize("error", FAULTS, ids=repr)
@pytest.mark.parametrize("name", ["_close", "_finish", "_serve_parts"])
def test_an_error_of_the_server_after_the_head_cuts_the_response(
    serve, monkeypatch, caplog, name, error
):
    def begin(environ, start_response):
        write = start_response("200 OK", [TEXT])
        write(b"begun")
        broken.break_next()
        return []

    broken = Broken(monkeypatch, Gateway, name, error)
    server = serve(site(begin), threads=1)
    for _ in range(3):
        assert raw(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"\r\nbegun\r\n")
        ping(server)
    assert caplog.text.count("an internal error ended a request") == 3


def test_bytes_in_the_output_outlive_an_error_of_the_server(serve, monkeypatch):
    def begin(environ, start_response):
        write = start_response("200 OK", [TEXT, ("Content-Length", str(len(PART) + 5))])
        write(bytes(PART))
        broken.break_next()
        return []

    broken = Broken(monkeypatch, Gateway, "_close", MemoryError())
    server = serve(site(begin), threads=1, response_buffer=4 << 20)
    for _ in range(3):
        with RawClient(server.port, receive_buffer=4096) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.wait_for_bytes()
            ping(server)
            answer = client.read_response()
        assert not answer.complete
        assert answer.content == PART


def test_an_error_of_the_server_closes_stored_content(serve, monkeypatch):
    broken = Broken(monkeypatch, EnvironMaker, "_add_content", MemoryError())
    server = serve(site(hello), threads=1, body_memory=1024)
    counts = []
    for _ in range(3):
        broken.expect_500(server, LARGE_POST)
        assert exchange(server, LARGE_POST)[0].content == b"hello"
        counts.append(descriptors_at_rest())
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_stored_content_that_is_already_open_is_closed_once(serve, monkeypatch):
    """An exception frees the file that has just been opened, and so closes its descriptor."""
    broken = Broken(monkeypatch, environs, "open_spooled", KeyboardInterrupt(), after=True)
    server = serve(site(hello), threads=1, body_memory=1024)
    for _ in range(3):
        broken.expect_500(server, LARGE_POST)
        assert exchange(server, LARGE_POST)[0].content == b"hello"


def test_stored_content_of_an_abandoned_request_is_closed(monkeypatch):
    """Ctrl-C arrives when the core has just passed a request to the serving thread."""
    monkeypatch.setenv("PICOWSGI_BODY_MEMORY", "1024")
    interrupted = Broken(
        monkeypatch, core, "next_request_within", KeyboardInterrupt(), after=lambda made: made >= 0
    )
    counts = []
    with make_server("127.0.0.1", 0, hello, handler_class=Quiet) as server:
        for _ in range(3):
            interrupted.break_next()
            with RawClient(server.server_port) as client:
                client.send(LARGE_POST)
                with pytest.raises(KeyboardInterrupt):
                    server.serve_forever()
                assert client.read_to_end() == b""
            counts.append(descriptors_at_rest())
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("whole", [True, False])
def test_an_application_may_detach_its_content(serve, whole):
    kept = []

    def detach(environ, start_response):
        kept.append(environ["wsgi.input"].detach())
        start_response("200 OK", [TEXT])
        return [b"hello"] if whole else iter([b"he", b"llo"])

    server = serve(site(detach), threads=1, body_memory=1024)
    for _ in range(3):
        assert exchange(server, LARGE_POST)[0].content == b"hello"
        kept.pop().close()


@pytest.mark.skipif(PYPY, reason="PyPy frees bytes later")
def test_bytes_in_the_output_outlive_an_interrupt_and_a_large_page(serve, monkeypatch):
    """Ctrl-C arrives when the core has just received the first item of a list."""

    def items(environ, start_response):
        start_response("200 OK", [TEXT])
        interrupted.break_next()
        return [bytes(bytearray(PART)) for _ in range(3)]

    def finish(*arguments):
        others = [b"-" * len(PART) for _ in range(8)]  # in the memory of the items, if that is free
        return others and original(*arguments)

    # Neither a log record nor the exception may keep the traceback, and with it all items.
    monkeypatch.setattr(logging.getLogger("picowsgi"), "disabled", True)
    original = core.finish
    monkeypatch.setattr(core, "finish", finish)
    page = [("Content-Type", "text/plain")], b"-" * 100_000
    monkeypatch.setattr(Gateway, "_make_page", staticmethod(lambda *_: page))
    interrupted = Broken(monkeypatch, Response, "send_first", KeyboardInterrupt, after=True)
    server = serve(site(items), threads=1)
    for _ in range(3):
        with RawClient(server.port, receive_buffer=4096) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.wait_for_bytes()
            ping(server)
            answer = client.read_response()
        assert not answer.complete
        assert answer.content == PART


@pytest.mark.parametrize("whole", [True, False])
def test_an_application_may_close_the_descriptor_of_its_content(serve, whole):
    def close_it(environ, start_response):
        os.close(environ["wsgi.input"].fileno())
        start_response("200 OK", [TEXT])
        return [b"hello"] if whole else iter([b"he", b"llo"])

    server = serve(site(close_it), threads=1, body_memory=1024)
    for _ in range(3):
        assert exchange(server, LARGE_POST)[0].content == b"hello"
        ping(server)


def test_the_error_page_itself_may_fail(serve, monkeypatch, caplog):
    monkeypatch.setattr("picowsgi.app.middleware.find_spec", lambda name: None)
    monkeypatch.setattr("picowsgi.app.pages.error.make_page", raising(MemoryError()))
    assert_fails_alone(serve(failing(raising(RuntimeError("first"))), threads=1, debug=True))
    assert caplog.text.count("RuntimeError: first") >= 3
    assert "error in the page for an error: GET /fail" in caplog.text


def test_the_other_threads_serve_when_one_thread_cannot_start(serve, monkeypatch, caplog):
    entered, may_end = threading.Event(), threading.Event()

    def wait(environ, start_response):
        entered.set()
        may_end.wait(TIMEOUT)
        return hello(environ, start_response)

    server = serve(site(wait), threads=4)
    ping(server)
    monkeypatch.setattr(core, "CoreThread", raising(MemoryError()))
    with RawClient(server.port) as slow:
        slow.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert entered.wait(TIMEOUT)
        with RawClient(server.port) as client:
            client.send(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
            said = "one more thread is needed but cannot be started: MemoryError()"
            wait_until(lambda: said in caplog.text, "the request for another thread")
            may_end.set()
            assert client.read_response().content == b"pong"
        assert slow.read_response().content == b"hello"
    ping(server)


# --- simple_server -------------------------------------------------------------------------------


class Threaded(socketserver.ThreadingMixIn, WSGIServer):
    pass


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


class Address:
    def __init__(self, server):
        self.port = server.server_port


@contextlib.contextmanager
def served(app, server_class, handler_class=Quiet):
    with make_server("127.0.0.1", 0, app, server_class, handler_class) as server:
        ended = []

        def serve():
            try:
                server.serve_forever()
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address(server)
        finally:
            server.shutdown()
            thread.join(TIMEOUT)
        assert not ended


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), MemoryError()], ids=repr)
@pytest.mark.parametrize("where", ["call", "item", "close"])
def test_serve_forever_in_threads_survives_any_exception_of_a_request(error, where):
    class Items:
        def __iter__(self):
            if where == "item":
                raise error
            return iter([b"fine"])

        def close(self):
            if where == "close":
                raise error

    def fail(environ, start_response):
        if where == "call":
            raise error
        start_response("200 OK", [TEXT])
        return Items()

    with served(failing(fail), Threaded) as server:
        for _ in range(3):
            (answer,) = exchange(server, FAIL)
            assert answer.status == (200 if where == "close" else 500)
            ping(server)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), RuntimeError()], ids=repr)
def test_serve_forever_in_threads_survives_an_exception_in_log_request(error):
    class Failing(WSGIRequestHandler):
        def log_request(self, *_code_and_size):
            raise error

    with served(site(hello), Threaded, Failing) as server:
        for _ in range(3):
            ping(server)


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError()], ids=repr)
def test_serve_forever_survives_any_exception_of_a_request_except_an_interrupt(error):
    with served(failing(raising(error)), WSGIServer) as server:
        assert_fails_alone(server)


def test_an_interrupt_in_the_server_itself_answers_the_request_and_ends_serving(monkeypatch):
    broken = Broken(monkeypatch, EnvironMaker, "make", KeyboardInterrupt())
    with make_server("127.0.0.1", 0, hello, handler_class=Quiet) as server:
        with RawClient(server.server_port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            broken.break_next()
            with pytest.raises(KeyboardInterrupt):
                server.serve_forever()
            assert client.read_response().status == 500
        with RawClient(server.server_port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            server.handle_request()
            assert client.read_response().content == b"hello"


def test_an_error_of_the_server_does_not_end_serve_forever(monkeypatch):
    broken = Broken(monkeypatch, EnvironMaker, "make", MemoryError())
    with served(site(hello), WSGIServer) as server:
        for _ in range(3):
            broken.expect_500(server)
            ping(server)


# --- the classes ---------------------------------------------------------------------------------


def test_picowsgi_errors_has_every_class_of_error(serve):
    for name in ("AppImport", "Bind", "Config", "Response", "RequestTimeout", "ClientGone"):
        assert issubclass(getattr(errors, f"{name}Error"), errors.PicowsgiError)
    seen = []

    def write_on(environ, start_response):
        write = start_response("200 OK", [TEXT])
        try:
            while True:
                write(b"x" * 65536)
        except errors.ClientGoneError as error:
            seen.append(error)
            ended.set()
            raise
        return []

    ended = threading.Event()
    server = serve(site(write_on), threads=1)
    with RawClient(server.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.wait_for_bytes()
        client.reset()
    assert ended.wait(TIMEOUT)
    assert len(seen) == 1
    ping(server)
