"""The project tests itself with live servers that are picowsgi servers."""

import gc
import json
import socket
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test import TestCase

from picowsgi.contrib.django.testing import LiveServerTestCase, StaticLiveServerTestCase
from survey.models import Question

STYLE = "/static/survey/look.css"


def open_descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode(), response.headers


class LiveTests(LiveServerTestCase):
    def test_a_request_sees_what_the_test_has_put_into_the_database(self):
        assert connection.is_in_memory_db(), "the test case that shares connections"
        Question.objects.create(text="Seen by another thread?")
        page, fields = get(self.live_server_url)
        assert "Seen by another thread?" in page
        assert fields["Server"] == "picowsgi"

    def test_the_test_sees_what_a_request_has_put_into_the_database(self):
        question = Question.objects.create(text="Yes or no?")
        answer = question.answers.create(text="Yes")
        get(f"{self.live_server_url}/vote/{answer.pk}/")
        answer.refresh_from_db()
        assert answer.votes == 1

    def test_its_address_is_that_of_djangos_own(self):
        parts = urlsplit(self.live_server_url)
        assert (parts.scheme, parts.hostname) == ("http", "localhost")
        assert self.host == self.allowed_host == "localhost"
        assert parts.port == self.server_thread.port != 0

    def test_requests_that_overlap_have_threads_of_their_own(self):
        with ThreadPoolExecutor(2) as pool:
            pages = list(pool.map(get, [f"{self.live_server_url}/meet/"] * 2))
        assert [json.loads(page)["met"] for page, _ in pages] == [True, True]

    def test_static_files_are_not_served_from_the_applications_folders(self):
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            get(self.live_server_url + STYLE)
        refused.value.close()


class StaticLiveTests(StaticLiveServerTestCase):
    host = "127.0.0.1"

    def test_static_files_are_served_from_the_applications_folders(self):
        text, fields = get(self.live_server_url + STYLE)
        assert "color:" in text
        assert fields["Content-Type"] == "text/css"

    def test_the_host_that_the_class_names_is_used(self):
        assert self.live_server_url.startswith("http://127.0.0.1:")
        get(self.live_server_url)


class ManyTests(TestCase):
    def test_a_hundred_servers_leave_nothing_behind(self):
        self.run_one()
        gc.collect()  # PyPy frees them only then
        threads, descriptors = threading.active_count(), open_descriptors()
        ports = [self.run_one() for _ in range(100)]
        assert threading.active_count() == threads, threading.enumerate()
        gc.collect()
        assert open_descriptors() == descriptors
        with socket.create_server(("127.0.0.1", ports[-1])):
            pass  # the port is free at once

    def run_one(self):
        class Live(LiveServerTestCase):
            host = "127.0.0.1"

            @classmethod
            def _make_connections_override(cls):
                return {}  # those belong to the current test

        Live.setUpClass()
        try:
            get(Live.live_server_url + "/threads/")
            return Live.server_thread.port
        finally:
            Live.tearDownClass()
            Live.doClassCleanups()

    def test_a_port_that_is_taken_fails_the_class_and_leaves_nothing(self):
        threads = threading.active_count()
        with socket.create_server(("127.0.0.1", 0)) as taken:

            class Live(LiveServerTestCase):
                host = "127.0.0.1"
                port = taken.getsockname()[1]

            with pytest.raises(OSError, match="in use"):
                Live.setUpClass()
            Live.doClassCleanups()
        assert threading.active_count() == threads, threading.enumerate()
