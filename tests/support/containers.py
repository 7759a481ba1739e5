"""Runs a command as a container runtime does: own namespaces, a read-only root, a user, limits.

It needs root and util-linux. Network traffic stays in the namespace.
"""

from __future__ import annotations

import ctypes
import http.client
import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import venv
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from support.processes import PROCESS_TIMEOUT, children, eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CGROUPS = Path("/sys/fs/cgroup")
UNSHARE = ("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
_CLONE_NEWNET = 0x40000000
#: Where the image has Python's environment and the application.
SITE_PACKAGES = f"opt/site/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
_PACKAGES = ("picowsgi", "click", "cffi", "_cffi_backend", "pycparser", "tomli")

# Makes the root of the image from folders of this machine and a tmpfs, which becomes read-only.
_SETUP = """
set -eu
umask 022
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$ROOT"
share() {  # share FOLDER PLACE: mount a folder read-only
    mkdir -p "$ROOT$2"
    mount --bind "$1" "$ROOT$2"
    mount -o remount,bind,ro "$ROOT$2"
}
for name in /bin /sbin /lib /lib32 /lib64; do
    if [ -L $name ]; then cp -P $name "$ROOT$name"; elif [ -d $name ]; then share $name $name; fi
done
share /usr /usr
share /etc /etc
case "$PREFIX" in /usr*) ;; *) share "$PREFIX" "$PREFIX" ;; esac
share "$IMAGE/opt/site" /opt/site
share "$IMAGE/srv/site" /srv/site
mkdir "$ROOT/dev" "$ROOT/proc" "$ROOT/sys"
for name in null zero random urandom; do
    touch "$ROOT/dev/$name"
    mount --bind /dev/$name "$ROOT/dev/$name"
done
mount -t proc proc "$ROOT/proc"
mkdir -p "$ROOT/sys/fs/cgroup"
mount --rbind /sys/fs/cgroup "$ROOT/sys/fs/cgroup"
"""
_START = """
mount -o remount,ro "$ROOT"
"$PYTHON" -c 'import fcntl, socket, struct
s = socket.socket()
fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))'
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$ROOT" setpriv {privileges} \\
    env --chdir=/srv/site {environ} {command}
"""


def why_not() -> str:
    """Return the reason why containers cannot run here, or nothing."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "needs root on Linux"
    for name in ("unshare", "setpriv", "chroot"):
        if shutil.which(name) is None:
            return f"needs {name}: apt-get install util-linux coreutils"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "needs the right to make namespaces"


def make_image(folder: Path, application: Path) -> None:
    """Fill a folder with what the image has beside the system: picowsgi and the application."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder / "opt/site")
    packages = folder / SITE_PACKAGES
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        if spec.submodule_search_locations:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(origin.parent, packages / name, ignore=ignored)
        else:
            shutil.copy(origin, packages)
    script = folder / "opt/site/bin/picowsgi"
    script.write_text(
        "#!/opt/site/bin/python\nimport sys\nfrom picowsgi.cli.main import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    (folder / "srv/site").mkdir(parents=True)
    shutil.copy(application, folder / "srv/site")


class Limits:
    """Control groups with a quota of CPUs and a limit of memory; version 1 or 2."""

    def __init__(self, cpus: float, memory: int) -> None:
        """Raise OSError if this process cannot make them."""
        name = f"picowsgi-test-{os.getpid()}-{id(self)}"
        period = 100_000
        quota = str(int(cpus * period))
        self.groups: list[Path] = []
        try:
            if (CGROUPS / "cgroup.controllers").exists():
                self._make(CGROUPS / name, {"cpu.max": f"{quota} {period}", "memory.max": memory})
            else:
                self._make(CGROUPS / "cpu" / name, {"cpu.cfs_quota_us": quota})
                self._make(CGROUPS / "memory" / name, {"memory.limit_in_bytes": memory})
        except OSError:
            self.end()
            raise

    def _make(self, group: Path, values: Mapping[str, object]) -> None:
        if not group.parent.is_dir():
            raise FileNotFoundError(group.parent)
        group.mkdir()
        self.groups.append(group)
        for name, value in values.items():
            (group / name).write_text(str(value))

    def end(self) -> None:
        for group in self.groups:

            def is_removed(group: Path = group) -> bool:
                with suppress(OSError):
                    group.rmdir()
                return not group.exists()

            eventually(is_removed, f"{group} to have no process")
        self.groups = []


class Container:
    """A running command. `first` is its process 1, as this machine numbers it."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        user: int,
        group: int,
        volumes: Mapping[str, Path],
        limits: Limits | None = None,
    ) -> None:
        """Run the image that `make_image` has made in folder / "image"."""
        root = folder / "root"
        root.mkdir()
        mounts = "".join(
            f'mkdir -p "$ROOT{place}"\nmount --bind {shlex.quote(str(source))} "$ROOT{place}"\n'
            for place, source in volumes.items()
        )
        privileges = (
            f"--reuid={user} --regid={group} --clear-groups --no-new-privs"
            " --bounding-set=-all --inh-caps=-all"
        )
        start = _START.format(
            privileges=privileges,
            environ=shlex.join(f"{name}={value}" for name, value in environ.items()),
            command=shlex.join(command),
        )
        groups = limits.groups if limits else []
        joins = "".join(f"echo $$ > {one}/cgroup.procs\n" for one in groups)
        inner = shlex.quote(_SETUP + mounts + start)
        self._log = folder / "container.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f"{joins}exec {shlex.join(UNSHARE)} sh -c {inner}"],
                env={
                    "PATH": os.environ["PATH"],
                    "ROOT": str(root),
                    "IMAGE": str(folder / "image"),
                    "PREFIX": sys.base_prefix,
                    "PYTHON": sys.executable,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(lambda: children(self.process.pid), "the container to start")
        (self.first,) = children(self.process.pid)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def connect(self, port: int) -> http.client.HTTPConnection:
        """Return a connection to a port, from within the namespace of the network."""
        found: list[socket.socket | OSError] = []

        def run() -> None:  # only this thread changes its namespace, and it ends
            try:
                with Path(f"/proc/{self.first}/ns/net").open("rb") as space:
                    if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                found.append(socket.create_connection(("127.0.0.1", port), PROCESS_TIMEOUT))
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(found[0], OSError):
            raise found[0]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROCESS_TIMEOUT)
        connection.sock = found[0]
        return connection

    def ask(
        self, port: int, path: str, body: bytes | None = None, timeout: float = PROCESS_TIMEOUT
    ) -> tuple[int, bytes]:
        """Return the status and the body of a response."""
        connection = self.connect(port)
        try:
            connection.sock.settimeout(timeout)
            connection.request("GET" if body is None else "POST", path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def terminate(self) -> None:
        """Send SIGTERM to process 1, as the kubelet does."""
        os.kill(self.first, signal.SIGTERM)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.first, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
