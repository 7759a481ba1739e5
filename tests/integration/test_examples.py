"""Each example runs with the one command in its docstring, and does what the docstring says."""

from __future__ import annotations

import json
import re
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
import urllib3

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Example:
    """A running example and a client of it."""

    def __init__(self, name, running):
        self.name = name
        self.running = running
        self._pool = urllib3.PoolManager(retries=False)

    def get(self, path="/", **options):
        return self.request("GET", path, **options)

    def post(self, path, content, **options):
        return self.request("POST", path, body=content, **options)

    def request(self, method, path, **options):
        return self._pool.request(
            method, self.running.url + path, redirect=False, timeout=10, **options
        )

    def end(self):
        self._pool.clear()
        status = self.running.stop()
        assert status == 0, f"{self.name} ended with {status}, not 0:\n{self.running.log}"


@pytest.fixture
def example(picowsgi):
    """Run an example as its docstring says. At the end it must exit with status 0."""
    running = []

    def run(name):
        one = Example(name, picowsgi(f"examples/{name}"))
        running.append(one)
        return one

    yield run
    for one in running:
        one.end()


def test_every_example_has_a_test_that_names_its_command():
    tests = Path(__file__).read_text()
    programs = sorted(EXAMPLES.glob("*.py"))
    assert programs, f"no examples in {EXAMPLES}"
    for program in programs:
        assert f"picowsgi examples/{program.name}\n" in program.read_text(), program.name
        assert f'example("{program.name}")' in tests, f"{program.name} has no test"


def test_the_function_greets_the_name_in_the_query(example):
    function = example("function.py")
    world, ada, fields = function.get(), function.get("/?name=Ad%C3%A9"), function.get().headers
    assert world.data == b"Hello, world!\n"
    assert ada.data.decode() == "Hello, Adé!\n"
    assert fields["Content-Length"] == str(len(world.data))


def test_the_class_makes_one_instance_for_each_request(example):
    per_request = example("class_per_request.py")
    first = per_request.get("/some/path")
    second = per_request.post("/", b"three words here")
    assert first.data == b"  method: GET\n    path: /some/path\n   bytes: 0\n   words: 0\n"
    assert second.data == b"  method: POST\n    path: /\n   bytes: 16\n   words: 3\n"
    utf8 = per_request.get("/%C3%A9")
    assert "path: /é\n" in utf8.data.decode(), "expected the path as bytes, unchanged"


def test_the_instance_counts_the_visits_of_each_path(example):
    instance = example("instance.py")
    answers = [json.loads(instance.get(path).data) for path in ("/tea", "/tea", "/coffee", "/tea")]
    assert [answer["visit"] for answer in answers] == [1, 2, 1, 3]
    assert answers[2] == {"path": "/coffee", "visit": 1}


def test_the_generator_streams_its_table_and_logs_how_far_it_came(example):
    generator = example("generator.py")
    small = generator.get("/?rows=2")
    assert small.data == b"number,square,cube\n1,1,1\n2,4,8\n"
    assert small.headers["Transfer-Encoding"] == "chunked"
    large = generator.get("/?rows=20000").data.splitlines()
    assert len(large) == 20001
    assert large[-1] == b"20000,400000000,8000000000000"
    assert generator.get("/?rows=many").status == 400
    generator.running.stop()
    assert "sent 20000 of 20000 rows" in generator.running.log
    assert "sent 2 of 2 rows" in generator.running.log


def test_the_router_passes_paths_to_the_applications_that_are_mounted_there(example):
    routing = example("routing.py")
    assert b"/hello/NAME" in routing.get("/").data
    assert routing.get("/hello").data == b"Hello, world!\n"
    assert routing.get("/hello/Ada").data == b"Hello, Ada!\n"
    assert json.loads(routing.get("/api").data) == {"length": "/api/length"}
    assert json.loads(routing.post("/api/length", b"12345").data) == {"bytes": 5}


def test_the_router_refuses_unknown_paths_and_methods(example):
    routing = example("routing.py")
    for path in ("/nowhere", "/hellos", "//hello"):
        assert routing.get(path).status == 404, path
    refused = routing.request("DELETE", "/hello/Ada")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert routing.get("/api/length").headers["Allow"] == "POST"
    head = routing.request("HEAD", "/hello")
    assert (head.status, head.data, head.headers["Content-Length"]) == (200, b"", "14")


def test_the_filter_writes_every_kind_of_text_response_in_capitals(example):
    filtering = example("filtering.py")
    expected = {
        "/": "GOOD MORNING, STRASSE\n",
        "/pieces": "ČAJ, CAFÉ, ĆEVAPI\n",
        "/write": "WRITTEN, THEN RETURNED\n",
        "/error": "THIS WAS TO BE EXPECTED\n",
        "/nowhere": "NOT FOUND\n",
    }
    for path, text in expected.items():
        assert filtering.get(path).data.decode() == text, path
    assert filtering.get("/error").status == 503


def test_the_filter_does_not_change_a_response_that_is_not_text(example):
    answer = example("filtering.py").get("/json")
    assert answer.data == b'{"case": "kept"}\n'
    assert answer.headers["Content-Type"] == "application/json"


def test_the_flask_guest_book_takes_an_entry_and_shows_it_escaped(example):
    book = example("flask_app.py")
    assert b"There are no entries yet" in book.get().data
    signed = book.request("POST", "/sign", fields={"name": "Ada", "text": "<good> evening"})
    assert (signed.status, signed.headers["Location"]) == (303, "/")
    assert b"<b>Ada</b>: &lt;good&gt; evening" in book.get().data
    entries = json.loads(book.get("/entries.json").data)
    assert entries == [{"name": "Ada", "text": "<good> evening"}]
    assert book.request("POST", "/sign", fields={"name": "Ada"}).status == 400


def test_the_django_list_checks_its_csrf_token_and_keeps_a_session(example):
    django = example("django_app.py")
    assert json.loads(django.get("/healthy").data) == {"healthy": True}
    page = django.get()
    cookie = SimpleCookie(page.headers["Set-Cookie"])["csrftoken"].value
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page.data.decode())[1]
    form = {"item": "bread & butter", "csrfmiddlewaretoken": token}

    refused = django.request("POST", "/", fields=form)
    assert refused.status == 403, "expected no access with the token alone"

    fields = {"Cookie": f"csrftoken={cookie}"}
    added = django.request("POST", "/", fields=form, headers=fields)
    assert (added.status, added.headers["Location"]) == (302, "/")
    session = SimpleCookie(added.headers["Set-Cookie"])["sessionid"].value
    shown = django.get("/", headers={"Cookie": f"sessionid={session}"})
    assert b"<li>bread &amp; butter</li>" in shown.data
    assert b"<li>nothing yet</li>" in django.get("/").data, (
        "expected an empty list for another visitor"
    )
