"""--health: the core answers without the application and without waiting for a thread."""

import threading

import pytest

from support import connect

PLAIN = [("Content-Type", "text/plain")]


def get(path, method="GET", fields=""):
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()


@pytest.fixture
def seen():
    return []


@pytest.fixture
def application(seen):
    def application(environ, start_response):
        seen.append(environ["REQUEST_METHOD"] + " " + environ["PATH_INFO"])
        start_response("200 OK", PLAIN)
        return [b"application"]

    return application


def test_the_path_is_answered_without_the_application(serve, application, seen):
    with connect(serve(application, health="/up")) as client:
        for target in ("/up", "/up?x=1", "/up"):
            client.send(get(target))
            response = client.read_response()
            assert (response.status, response.content) == (200, b"ok\n")
            assert response.value("cache-control") == "no-store"
        client.send(get("/up", method="HEAD"))
        response = client.read_response("HEAD")
        assert (response.status, response.value("content-length")) == (200, "3")
    assert seen == []


def test_other_paths_and_methods_reach_the_application(serve, application, seen):
    with connect(serve(application, health="/up")) as client:
        for data in (
            get("/up/"),
            get("/upper"),
            get("/"),
            get("/up", "POST", "Content-Length: 0\r\n"),
        ):
            client.send(data)
            assert client.read_response().content == b"application"
    assert seen == ["GET /up/", "GET /upper", "GET /", "POST /up"]


def test_the_health_check_is_answered_in_its_turn_among_pipelined_requests(serve, application):
    with connect(serve(application, health="/up")) as client:
        client.send(get("/") + get("/up") + get("/"))
        contents = [client.read_response().content for _ in range(3)]
    assert contents == [b"application", b"ok\n", b"application"]


def test_the_core_answers_a_cached_head_with_this_path_too(serve, application, seen):
    with connect(serve(application, health="/up")) as client:
        for path in ("/a", "/a", "/a", "/up", "/b", "/up"):
            client.send(get(path))
            content = client.read_response().content
            assert content == (b"ok\n" if path == "/up" else b"application")
    assert seen == ["GET /a", "GET /a", "GET /a", "GET /b"]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_health_check_is_answered_while_all_threads_are_busy_and_shows_a_drain(serve, threads):
    opened, entered = threading.Event(), threading.Semaphore(0)

    def application(environ, start_response):
        entered.release()
        assert opened.wait(10)
        start_response("200 OK", PLAIN)
        return [b"late"]

    server = serve(application, threads=threads, loops=1, health="/up")
    stopping = threading.Thread(target=server.stop)
    busy = [connect(server) for _ in range(threads)]
    for client in busy:
        client.send(get("/"))
        assert entered.acquire(timeout=5)
    try:
        with connect(server) as probe, connect(server) as idle:
            for client in (probe, idle):
                client.send(get("/up"))
                assert client.read_response().status == 200
            probe.send(b"GET /up HTTP/1.1\r\n")  # which a drain does not close as idle
            idle.send(get("/up"))  # answered after the previous line was read
            assert idle.read_response().status == 200
            stopping.start()
            assert idle.read_to_end() == b"", "expected the drain to close the idle connection"
            probe.send(b"Host: a\r\n\r\n")
            response = probe.read_response()
            assert (response.status, response.content) == (503, b"draining\n")
    finally:
        opened.set()
    for client in busy:
        assert client.read_response().content == b"late"
        client.close()
    stopping.join(10)


def test_an_answer_after_a_chunked_response_is_not_chunked(serve):
    def application(environ, start_response):
        start_response("200 OK", PLAIN)
        return iter([b"in ", b"parts"])

    with connect(serve(application, health="/up")) as client:
        client.send(get("/"))
        assert client.read_response().content == b"in parts"
        client.send(get("/up"))
        response = client.read_response()
        assert (response.content, response.value("transfer-encoding")) == (b"ok\n", None)


@pytest.mark.parametrize("path", ["up", "/a b", "/a?b", "/\u00e9"])
def test_an_invalid_path_is_a_clear_error(serve, application, path):
    with pytest.raises(ValueError, match="health"):
        serve(application, health=path)
