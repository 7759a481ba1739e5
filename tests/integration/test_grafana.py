"""The dashboard for Grafana: its expressions are valid, and have values from a running server."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support import connect, wait_until
from support.metrics import metrics_port, read_page
from support.processes import ask, children, eventually, write_app
from support.prometheus import PROGRAMS, Prometheus, needs_prometheus

DASHBOARD = Path(__file__).resolve().parents[2] / "examples" / "grafana" / "picowsgi.json"
#: A new Prometheus waits for some seconds before its first sample.
SCRAPE_TIMEOUT = 40.0


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text("utf-8"))


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard):
    """Return each expression with a name: that of its panel and its target."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels(dashboard)
        for target in panel["targets"]
    }


def replaced(expression, instances):
    """Return an expression as Grafana sends it to Prometheus."""
    sent = expression.replace("$__rate_interval", "30s").replace("$instance", instances)
    assert "$" not in sent, f"expected only known variables in {expression}"
    return sent


def selectors(expression):
    """Return the name and the labels of each selector of an expression."""
    return re.findall(r"\b((?:picowsgi|process)_\w+)(?:\{([^}]*)\})?", expression)


def test_the_dashboard_has_its_variables(dashboard):
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "instance"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == (
        "datasource",
        "prometheus",
    )
    assert variables["instance"]["definition"] == "label_values(picowsgi_info, instance)"
    assert variables["instance"]["query"]["query"] == variables["instance"]["definition"]
    for panel in panels(dashboard):
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_selector_is_of_the_chosen_instances(dashboard):
    for name, expression in expressions(dashboard).items():
        found = selectors(expression)
        assert found, f"{name} has no metric"
        for metric, labels in found:
            assert 'instance=~"$instance"' in labels, f"{name}: {metric}"


def test_panels_have_ids_of_their_own_a_description_and_a_place_without_others(dashboard):
    everything = dashboard["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} covers another panel"
        taken |= cells
    assert all(panel["description"].endswith(".") for panel in panels(dashboard))


@needs_prometheus
def test_prometheus_accepts_every_expression(dashboard, tmp_path):
    rules = []
    for name, expression in expressions(dashboard).items():
        record = "checked:" + re.sub(r"\W", "_", name)
        sent = replaced(expression, "127.0.0.1:9000|127.0.0.1:9001")
        rules.append({"record": record, "expr": sent})
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        [PROGRAMS["promtool"], "check", "rules", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(rules)} rules found" in checked.stdout


@pytest.fixture
def site(picowsgi, tmp_path):
    """A server with two workers: its process, and the port of its metrics."""
    write_app(tmp_path)
    running = picowsgi(
        *("app:app", "--workers", "2", "--metrics", "127.0.0.1:0"), directory=tmp_path
    )
    running.wait_for_log("metrics on ")
    yield running, metrics_port(running.log)
    assert running.stop() == 0


def test_the_server_has_every_metric_of_the_dashboard(dashboard, site):
    _, port = site
    exported = {name for name, _ in read_page(port).samples}
    used = {
        metric
        for expression in expressions(dashboard).values()
        for metric, _ in selectors(expression)
    }
    assert used <= exported
    parts = ("_bucket", "_sum", "_count")
    shown = {metric.removesuffix(part) for metric in used for part in parts} | used
    forgotten = {
        metric
        for metric in exported
        if not {metric, *(metric.removesuffix(part) for part in parts)} & shown
    }
    assert not forgotten, "expected a panel for each metric of the server"


@pytest.fixture
def prometheus(site, tmp_path):
    """A Prometheus that scrapes the server."""
    directory = tmp_path / "prometheus"
    directory.mkdir()
    one = Prometheus(directory, site[1])
    yield one
    one.end()


def is_number(value):
    return value is not None and not math.isnan(value)


@pytest.mark.timeout(150)
@needs_prometheus
def test_every_expression_has_a_value_from_a_running_server(dashboard, site, prometheus):
    running, metrics_port = site
    wait_until(lambda: prometheus.value("up") == 1, "a first sample", SCRAPE_TIMEOUT)
    worker = children(running.process.pid)[0]
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: worker not in children(running.process.pid), "the worker to end")

    def happens():
        """Let the server answer a request, and refuse one."""
        ask(running.port)
        with connect(running) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert client.read_response().status == 400

    for name, expression in expressions(dashboard).items():
        sent = replaced(expression, f"127.0.0.1:{metrics_port}")
        wait_until(
            # The share of errors is no number until there is a rate of requests.
            lambda sent=sent: happens() or is_number(prometheus.value(sent)),
            f"a value of {name}: {sent}",
            SCRAPE_TIMEOUT,
        )
