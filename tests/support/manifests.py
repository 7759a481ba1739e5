"""The manifests in examples/kubernetes/, and what they say about the container."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from picowsgi.config.load import load_settings

yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install pyyaml")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDER = EXAMPLES / "kubernetes"


def load(name):
    (document,) = yaml.safe_load_all((FOLDER / name).read_text())
    return document


NAMES = sorted(path.name for path in FOLDER.glob("*.yaml"))
FILES = {name: load(name) for name in NAMES}
MANIFESTS = {
    file["kind"]: file
    for file in FILES.values()
    if "apiVersion" in file and file["kind"] != "Kustomization"
}
DEPLOYMENT, SERVICE = MANIFESTS["Deployment"], MANIFESTS["Service"]
POD = DEPLOYMENT["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PROBES = {name: CONTAINER[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}


def arguments():
    """Return the arguments of picowsgi, and its application at the end."""
    assert CONTAINER["command"] == ["picowsgi"]
    return list(CONTAINER["args"])


def options():
    """Return the values of the options by their names."""
    pairs = (one.removeprefix("--").partition("=") for one in arguments()[:-1])
    return {name.replace("-", "_"): value for name, _, value in pairs}


def settings():
    """Return the settings of the container."""
    given = {name: value or True for name, value in options().items()}
    return load_settings(given, environ={})


def cpus(text):
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def size(text):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()
    return int(number) << {"Mi": 20, "Gi": 30}[unit]
