"""A real Prometheus scrapes --metrics, and its tools accept the page and the example's rules."""

from __future__ import annotations

import re
import subprocess

import pytest

from support.metrics import fetch, metrics_port, page_with
from support.processes import PROCESS_TIMEOUT, ask, eventually, write_app
from support.prometheus import EXAMPLE, PROGRAMS, RULES, Prometheus, needs_prometheus

pytestmark = needs_prometheus


def promtool(*arguments, text=None):
    """Run promtool, and return its output. It fails with an error or a warning of its linter."""
    done = subprocess.run(
        [PROGRAMS["promtool"], *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"expected no complaint: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_promtool_accepts_the_page(serve):
    def application(_environ, start_response):
        start_response("200 OK", [])
        return [b"hello"]

    server = serve(application, metrics="127.0.0.1:0")
    ask(server.port)
    port = int(server.metrics_url.rpartition(":")[2].partition("/")[0])
    page_with(port, requests={"GET 2xx": 1})
    assert promtool("check", "metrics", text=fetch(port)[2]) == ""


def test_promtool_accepts_the_rules_of_the_example_and_their_tests():
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    tested = set(re.findall(r"alertname: (\w+)", (EXAMPLE / "rules_test.yml").read_text()))
    assert alerts == tested, "expected a test of each alert"
    assert f"SUCCESS: {len(alerts)} rules found" in promtool("check", "rules", str(RULES))
    promtool("check", "config", str(EXAMPLE / "prometheus.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(EXAMPLE / "rules_test.yml"))


def test_the_rules_and_the_documentation_use_only_metrics_that_exist(serve):
    server = serve(lambda _environ, _start: [], metrics="127.0.0.1:0")
    page = page_with(int(server.metrics_url.rpartition(":")[2].partition("/")[0]), requests={})
    names = {name for name, _ in page.samples}
    used = set(re.findall(r"\b(?:picowsgi|process)_\w+", RULES.read_text()))
    assert used <= names
    docs = (EXAMPLE.parents[1] / "docs" / "operation.md").read_text("utf-8")
    listed = set(re.findall(r"`((?:picowsgi|process)_\w+)[`{]", docs))
    assert listed == set(page.types), "expected every metric in docs/operation.md"


@pytest.fixture
def prometheus(tmp_path):
    """Start a Prometheus that scrapes this port: `prometheus(9100)`."""
    started = []

    def start(target):
        directory = tmp_path / "prometheus"
        directory.mkdir()
        started.append(Prometheus(directory, target))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_prometheus_scrapes_the_page(picowsgi, prometheus, tmp_path):
    write_app(tmp_path)
    options = ("--workers", "2", "--metrics", "127.0.0.1:0")
    command = picowsgi(*options, "app:app", directory=tmp_path)
    command.wait_for_log("metrics on ")
    port = metrics_port(command.log)
    for _ in range(7):
        ask(command.port)
    page = page_with(port, requests={"GET 2xx": 7}, workers=2)
    one = prometheus(port)
    eventually(lambda: one.value("up") == 1, "a scrape")
    (target,) = one.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    eventually(
        lambda: one.value('picowsgi_requests_total{method="GET",status="2xx"}') == 7, "the requests"
    )
    assert one.value("picowsgi_workers") == 2
    assert one.value("picowsgi_request_duration_seconds_count") == 7
    quantile = one.value("histogram_quantile(0.95, picowsgi_request_duration_seconds_bucket)")
    assert 0 < quantile <= 30
    scraped = {each["__name__"] for each in one.ask("series", **{"match[]": '{job="picowsgi"}'})}
    assert {name for name, _ in page.samples} <= scraped
    metadata = one.ask("metadata")
    assert {name: metadata[name][0]["type"] for name in page.types} == page.types
    (group,) = one.ask("rules")["groups"]
    eventually(
        lambda: {each["health"] for each in one.ask("rules")["groups"][0]["rules"]} == {"ok"},
        "an evaluation of all rules",
    )
    assert len(group["rules"]) == RULES.read_text().count("- alert: ")
    command.stop()
    eventually(
        lambda: [each["state"] for each in one.ask("alerts")["alerts"]] == ["pending"],
        "the alert of a server that is down",
    )
