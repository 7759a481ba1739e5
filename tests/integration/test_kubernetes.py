"""The manifests in examples/kubernetes/ follow the API of Kubernetes, and fit together."""

from __future__ import annotations

import copy
import importlib
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.manifests import (
    CONTAINER,
    DEPLOYMENT,
    EXAMPLES,
    FILES,
    FOLDER,
    MANIFESTS,
    POD,
    PORTS,
    PROBES,
    SERVICE,
    arguments,
    cpus,
    options,
    settings,
    size,
    yaml,
)
from support.processes import PROCESS_TIMEOUT

KUBECTL = shutil.which("kubectl")


def model_of(manifest):
    """Return a manifest as the model that was made from the API of Kubernetes writes it.

    An invalid value is an error, and an unknown key is lost.
    """
    models = pytest.importorskip(
        "lightkube.models", reason="needs lightkube: pip install lightkube"
    )
    msgspec = pytest.importorskip("msgspec", reason="needs msgspec: pip install msgspec")
    group, _, version = manifest["apiVersion"].rpartition("/")
    module = importlib.import_module(f"{models.__name__}.{group or 'core'}_{version}")
    model = getattr(module, manifest["kind"])
    msgspec.convert(manifest, model)
    return model.from_dict(manifest, lazy=False).to_dict()


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_follows_the_api_of_kubernetes(kind):
    assert model_of(MANIFESTS[kind]) == MANIFESTS[kind], "expected only keys of the API"


def test_the_check_of_the_api_finds_an_unknown_key_and_a_wrong_value():
    wrong = copy.deepcopy(DEPLOYMENT)
    (container,) = wrong["spec"]["template"]["spec"]["containers"]
    container["readinessProbe"]["period"] = 2
    assert model_of(wrong) == DEPLOYMENT != wrong
    container["args"] = "--workers=auto"
    with pytest.raises(ValueError, match="args"):
        model_of(wrong)


def test_the_kustomization_names_every_manifest():
    kinds = {name: file.get("kind") for name, file in FILES.items()}
    manifests = {name for name, kind in kinds.items() if kind in MANIFESTS}
    assert len(manifests) == len(MANIFESTS), "expected one file for each kind"
    kustomization = FILES["kustomization.yaml"]
    assert set(kustomization["resources"]) == manifests
    assert set(FILES) - manifests == {"kustomization.yaml", "prometheus-adapter.yaml"}
    (image,) = kustomization["images"]
    assert CONTAINER["image"] == f"{image['name']}:{image['newTag']}"


@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")
def test_kubectl_builds_the_folder(tmp_path):
    built = subprocess.run(
        [KUBECTL, "kustomize", FOLDER],
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert built.returncode == 0, built.stderr
    assert {one["kind"]: one for one in yaml.safe_load_all(built.stdout)} == MANIFESTS


def test_the_readme_names_every_file():
    text = (FOLDER / "README.md").read_text()
    for name in {*FILES, "Containerfile"} - {"kustomization.yaml"}:
        assert f"| `{name}` |" in text


def test_all_selectors_select_the_pods_of_the_deployment():
    labels = POD["metadata"]["labels"].items()
    (spread,) = POD["spec"]["topologySpreadConstraints"]
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        SERVICE["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels
    scaler = MANIFESTS["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": DEPLOYMENT["apiVersion"],
        "kind": "Deployment",
        "name": DEPLOYMENT["metadata"]["name"],
    }
    assert "replicas" not in DEPLOYMENT["spec"], "expected only the autoscaler to set them"


def test_ports_and_probes_are_those_of_the_options():
    given = settings()
    (bind,) = given.binds()
    assert (bind.host, bind.port) == ("0.0.0.0", PORTS["http"])
    (port,) = SERVICE["spec"]["ports"]
    assert port["targetPort"] in PORTS
    assert port["targetPort"] == "http"
    paths = {"startup": given.health, "readiness": given.health, "liveness": given.health_live}
    for name, path in paths.items():
        assert PROBES[name]["httpGet"] == {"path": path, "port": "http"}
    annotations = POD["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORTS["metrics"])
    assert options()["metrics"] == f"0.0.0.0:{PORTS['metrics']}"


def test_the_kubelet_waits_longer_than_the_server_and_notices_the_drain():
    given = settings()
    stop = given.drain_delay + given.timeout_graceful
    assert stop < POD["spec"]["terminationGracePeriodSeconds"]
    readiness = PROBES["readiness"]
    noticed = (
        readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"]
    )
    assert noticed < given.drain_delay


def test_the_limits_have_room_for_what_the_options_allow():
    given = settings()
    limits = CONTAINER["resources"]["limits"]
    workers = math.ceil(cpus(limits["cpu"]))
    mebibytes = 1 << 20
    assert options()["workers"] == "auto"
    buffers = workers * (given.body_memory_total + given.head_memory_total)
    assert buffers + workers * 100 * mebibytes < size(limits["memory"])
    assert CONTAINER["resources"]["requests"] == limits
    # The bodies of all threads and as many that arrive, or the streams that wait for their clients.
    (volume,) = POD["spec"]["volumes"]
    room = size(volume["emptyDir"]["sizeLimit"])
    assert given.threads * given.max_body_size <= room
    assert 16 * given.response_spool <= room
    (mount,) = CONTAINER["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/tmp")


def test_the_autoscaler_and_the_adapter_use_the_same_metric():
    first, second = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = first["pods"]["metric"]["name"]
    (rule,) = FILES["prometheus-adapter.yaml"]["rules"]["custom"]
    assert name == "picowsgi_queue_length"
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert rule["name"]["as"] == name
    assert re.fullmatch(rule["name"]["matches"], name)
    assert second["resource"]["name"] == "cpu"


def instructions(name):
    """Return the arguments of this instruction in each stage of the Containerfile."""
    text = (FOLDER / "Containerfile").read_text().replace("\\\n", " ")
    stages = re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]
    return [re.findall(rf"^{name} +(.*)$", stage, re.MULTILINE) for stage in stages]


def test_the_image_has_the_user_the_ports_and_the_application_of_the_pod():
    wheels, base = instructions("FROM")
    assert (wheels, base) == (["python:3.13-slim AS wheels"], ["python:3.13-slim"])
    pod = POD["spec"]["securityContext"]
    assert instructions("USER")[-1] == [f"{pod['runAsUser']}:{pod['runAsGroup']}"]
    assert pod["runAsUser"] > 0
    (exposed,) = instructions("EXPOSE")[-1]
    assert set(map(int, exposed.split())) == set(PORTS.values())
    (copied,) = instructions("COPY")[-1]
    source, folder = copied.split()
    assert (EXAMPLES / source).is_file()
    assert instructions("WORKDIR")[-1] == [folder.rstrip("/")]
    (words,) = instructions("CMD")[-1]
    program, *words = json.loads(words)
    assert [program] == CONTAINER["command"]
    assert words[-1] == arguments()[-1]
    assert words[-1].partition(":")[0] == Path(source).stem


def test_picowsgi_accepts_the_arguments():
    checked = subprocess.run(
        [sys.executable, "-m", "picowsgi", "--check", *arguments()],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
    )
    assert checked.returncode == 0, f"expected valid options, got:\n{checked.stderr}"
