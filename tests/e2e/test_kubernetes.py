"""The manifests in examples/kubernetes/ are valid and fit together, and their container runs."""

from __future__ import annotations

import copy
import errno
import importlib
import json
import math
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from picowsgi.config.load import load_settings
from picowsgi.config.settings import OPTIONS
from support.containers import Container, Limits, make_image, why_not
from support.processes import PROCESS_TIMEOUT, children, eventually

yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install pyyaml")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDER = EXAMPLES / "kubernetes"
KUBECTL = shutil.which("kubectl")
HAS_METRICS = "metrics" in OPTIONS

APP = """
import errno, json, os, time
from pathlib import Path

def write_to(folder):
    try:
        (Path(folder) / "written").write_text("x")
    except OSError as error:
        return error.errno
    return 0

def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = b""
    if path == "/facts":
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        facts = {
            "uid": os.getuid(),
            "gid": os.getgid(),
            "groups": os.getgroups(),
            "pid": os.getpid(),
            "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")],
            "no new privileges": int(status["NoNewPrivs"]),
            "written": {folder: write_to(folder) for folder in ("/", "/srv/site", "/etc", "/tmp")},
        }
        body = json.dumps(facts).encode()
    elif path == "/hold":
        Path("/tmp/held").touch()
        while not Path("/tmp/release").exists():
            time.sleep(0.005)
    elif environ["REQUEST_METHOD"] == "POST":
        size = 0
        while piece := environ["wsgi.input"].read(1 << 16):
            size += len(piece)
        body = str(size).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


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
    return [one for one in CONTAINER["args"] if HAS_METRICS or not one.startswith("--metrics=")]


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


# ---------------------------------------------------------------- the files


def model_of(manifest):
    """Return a manifest as the model that was made from the API of Kubernetes writes it.

    An invalid value is an error, and an unknown key is lost.
    """
    models = pytest.importorskip(
        "lightkube.models", reason="needs lightkube: pip install lightkube"
    )
    group, _, version = manifest["apiVersion"].rpartition("/")
    module = importlib.import_module(f"{models.__name__}.{group or 'core'}_{version}")
    return getattr(module, manifest["kind"]).from_dict(copy.deepcopy(manifest)).to_dict()


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
    if HAS_METRICS:
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


# ---------------------------------------------------------------- the container

needs_containers = pytest.mark.skipif(bool(why_not()), reason=why_not() or "can run containers")


def service_variables(name, port):
    """Return the variables that every container gets for a Service."""
    prefix = name.upper().replace("-", "_")
    address = "10.96.0.17"
    return {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(port),
        f"{prefix}_SERVICE_PORT_HTTP": str(port),
        f"{prefix}_PORT": f"tcp://{address}:{port}",
        f"{prefix}_PORT_{port}_TCP": f"tcp://{address}:{port}",
        f"{prefix}_PORT_{port}_TCP_PROTO": "tcp",
        f"{prefix}_PORT_{port}_TCP_PORT": str(port),
        f"{prefix}_PORT_{port}_TCP_ADDR": address,
    }


@pytest.fixture
def run(tmp_path):
    """Run the container of the Deployment, with this application: `run(APP)`."""
    with ExitStack() as stack:

        def start(text, limits=None):
            module = tmp_path / f"{arguments()[-1].partition(':')[0]}.py"
            module.write_text(text)
            make_image(tmp_path / "image", module)
            volume = tmp_path / "temporary"
            volume.mkdir()
            volume.chmod(0o777)  # as an emptyDir
            (port,) = SERVICE["spec"]["ports"]
            environ = {"PATH": "/opt/site/bin:/usr/bin:/bin", "HOSTNAME": "site-1", "HOME": "/"}
            for name in ("kubernetes", SERVICE["metadata"]["name"], "picowsgi"):
                environ |= service_variables(name, port["port"])
            context = POD["spec"]["securityContext"]
            (mount,) = CONTAINER["volumeMounts"]
            one = Container(
                tmp_path,
                [*CONTAINER["command"], *arguments()],
                environ=environ,
                user=context["runAsUser"],
                group=context["runAsGroup"],
                volumes={mount["mountPath"]: volume},
                limits=limits,
            )
            stack.callback(one.end)
            eventually(
                lambda: probe(one, "startup") == 200, f"the startup probe to pass\n{one.log}"
            )
            return one

        yield start


def probe(container, name):
    """Return the status for a probe, or None without a response in its time."""
    asked = PROBES[name]["httpGet"]
    assert container.process.poll() is None, container.log
    try:
        timeout = PROBES[name].get("timeoutSeconds", 1)
        return container.ask(PORTS[asked["port"]], asked["path"], timeout=timeout)[0]
    except OSError:
        return None


def ask(container, path, body=None):
    return container.ask(PORTS["http"], path, body)


@needs_containers
@pytest.mark.unsanitized  # the image has its own copy of the core
def test_the_example_application_runs_in_the_container(run):
    container = run((EXAMPLES / "function.py").read_text())
    assert ask(container, "/?name=Ada") == (200, b"Hello, Ada!\n")
    assert probe(container, "readiness") == 200
    assert probe(container, "liveness") == 200
    if HAS_METRICS:
        status, page = container.ask(PORTS["metrics"], "/metrics")
        assert status == 200
        assert re.search(rb"^picowsgi_queue_length 0$", page, re.MULTILINE)


@needs_containers
@pytest.mark.unsanitized
def test_the_container_has_no_privileges_and_can_write_to_its_volume_only(run):
    container = run(APP)
    facts = json.loads(ask(container, "/facts")[1])
    context = POD["spec"]["securityContext"]
    own = CONTAINER["securityContext"]
    assert (facts["uid"], facts["gid"]) == (context["runAsUser"], context["runAsGroup"])
    assert facts["groups"] == []
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert facts["capabilities"] == [0, 0, 0]
    assert own["allowPrivilegeEscalation"] is False
    assert facts["no new privileges"] == 1
    assert own["readOnlyRootFilesystem"] is True
    assert facts["written"] == {
        "/": errno.EROFS,
        "/srv/site": errno.EROFS,
        "/etc": errno.EROFS,
        "/tmp": 0,
    }


@needs_containers
@pytest.mark.unsanitized
def test_variables_of_a_service_named_picowsgi_are_ignored_with_one_line(run):
    container = run(APP)
    lines = [line for line in container.log.splitlines() if "PICOWSGI_" in line]
    assert len(lines) == 1, container.log
    assert "similar variables are ignored" in json.loads(lines[0])["message"]
    for line in container.log.splitlines():
        json.loads(line)


@needs_containers
@pytest.mark.unsanitized
def test_after_sigterm_the_container_drains_within_the_grace_period(run, tmp_path):
    container = run(APP)
    given = settings()
    held = container.connect(PORTS["http"])
    held.request("GET", "/hold")
    eventually((tmp_path / "temporary/held").exists, "the request to run")
    began = time.monotonic()
    container.terminate()
    eventually(lambda: probe(container, "readiness") == 503, "the readiness probe to fail")
    assert probe(container, "liveness") == 200
    assert ask(container, "/") == (200, b""), "expected the pod to serve while it drains"
    assert time.monotonic() - began < given.drain_delay, "expected that during the delay"

    def is_refused():
        try:
            container.connect(PORTS["http"]).close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(is_refused, "the end of the delay")
    assert time.monotonic() - began >= given.drain_delay
    (tmp_path / "temporary/release").touch()
    response = held.getresponse()
    assert (response.status, response.read()) == (200, b"")
    held.close()
    assert container.process.wait(PROCESS_TIMEOUT) == 0, container.log
    assert time.monotonic() - began < POD["spec"]["terminationGracePeriodSeconds"]


@needs_containers
@pytest.mark.unsanitized
def test_the_workers_follow_the_limit_of_cpus_and_uploads_fit_into_that_of_memory(run):
    asked = CONTAINER["resources"]["limits"]
    try:
        limits = Limits(cpus(asked["cpu"]), size(asked["memory"]))
    except OSError as error:
        pytest.skip(f"needs control groups that it can change: {error}")
    try:
        container = run(APP, limits)
        count = math.ceil(cpus(asked["cpu"]))
        started = children(container.first)
        assert len(started) == (count if count > 1 else 0), "expected a worker for each CPU"
        most = settings().max_body_size
        for _ in range(4):
            assert ask(container, "/", b"x" * most) == (200, str(most).encode())
        assert ask(container, "/", b"x" * (most + 1))[0] == 413
        assert probe(container, "liveness") == 200, container.log
        container.end()
    finally:
        limits.end()
