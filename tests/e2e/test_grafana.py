"""The dashboard for Grafana: its expressions are valid, and the server has their metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DASHBOARD = Path(__file__).resolve().parents[2] / "examples" / "grafana" / "picowsgi.json"
PROMTOOL = shutil.which("promtool")
#: What Grafana replaces before it sends an expression.
VARIABLES = {"$__rate_interval": "1m", "$instance": "127.0.0.1:9000|127.0.0.1:9001"}


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


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")
def test_prometheus_accepts_every_expression(dashboard, tmp_path):
    rules = []
    for name, expression in expressions(dashboard).items():
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, f"{name} has another variable"
        record = "checked:" + re.sub(r"\W", "_", name)
        rules.append({"record": record, "expr": expression})
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        [PROMTOOL, "check", "rules", file], capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(rules)} rules found" in checked.stdout
