"""tools/check_dist.py finds forbidden and missing files of a wheel."""

from __future__ import annotations

import importlib.util
import re
import zipfile
from pathlib import Path

import pytest

import picowsgi._core
from support import PYPY

CORE = Path(picowsgi._core.__file__).read_bytes()
# A module that needs more than the C library.
OTHER = Path(importlib.util.find_spec("_sqlite3_cffi" if PYPY else "_cffi_backend").origin)
TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_dist.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("check_dist", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel(tool, tmp_path, monkeypatch):
    """Make a wheel that is valid except for these files: `wheel({name: content or None})`."""
    monkeypatch.setattr(tool, "version", lambda: "1.2.3")

    def make(changes, name="picowsgi-1.2.3-cp310-abi3-manylinux_2_28_x86_64.whl"):
        facts = "picowsgi-1.2.3.dist-info"
        files = {
            **dict.fromkeys(tool.TYPES, b""),
            **{f"{facts}/licenses/{licence}": b"MIT" for licence in tool.LICENCES},
            f"{facts}/METADATA": b"Name: picowsgi\n",
            "picowsgi/_core.abi3.so": CORE,
            **changes,
        }
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in files.items():
                if content is not None:
                    archive.writestr(member, content)
        return path

    return make


@pytest.mark.unsanitized
def test_a_valid_wheel_passes(tool, wheel):
    tool.check_wheel(wheel({}))


@pytest.mark.unsanitized
def test_a_wheel_for_macos_may_have_a_module_that_linux_does_not_have(tool, wheel):
    changes = {"picowsgi/_core.abi3.so": b"\xcf\xfa\xed\xfe"}
    tool.check_wheel(wheel(changes, name="picowsgi-1.2.3-cp310-abi3-macosx_11_0_arm64.whl"))


@pytest.mark.unsanitized
@pytest.mark.parametrize(
    ("tags", "suffix"),
    [("cp314-cp314t", "cpython-314t-"), ("pp311-pypy311_pp73", "pypy311-pp73-")],
)
def test_a_wheel_without_the_stable_abi_has_a_module_for_one_python(tool, wheel, tags, suffix):
    name = f"picowsgi-1.2.3-{tags}-manylinux_2_28_x86_64.whl"
    module = f"picowsgi/_core.{suffix}x86_64-linux-gnu.so"
    tool.check_wheel(wheel({"picowsgi/_core.abi3.so": None, module: CORE}, name=name))
    for wrong in ({}, {module: CORE}):
        with pytest.raises(tool.PackageError, match=rf"expected only picowsgi/_core\.{suffix}"):
            tool.check_wheel(wheel(wrong, name=name))


@pytest.mark.unsanitized
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"picowsgi/py.typed": None}, "picowsgi/py.typed is missing"),
        (
            {"picowsgi-1.2.3.dist-info/licenses/csrc/vendor/picohttpparser/LICENSE": None},
            "picohttpparser/LICENSE is missing",
        ),
        (
            {"picowsgi-1.2.3.dist-info/METADATA": f"of {TOOL.parents[1]}".encode()},
            f"METADATA contains a local path, {re.escape(str(TOOL.parents[1]))}",
        ),
        ({"picowsgi/other.so": b""}, "expected only picowsgi/_core.abi3.so"),
        (
            {"picowsgi/_core.abi3.so": OTHER.read_bytes()},
            "expected (only the C library|no search path for libraries)",
        ),
    ],
    ids=["types", "licence", "path", "module", "library"],
)
def test_each_fault_of_a_wheel_is_named(tool, wheel, monkeypatch, changes, said):
    monkeypatch.setattr(tool, "_places", lambda: [str(TOOL.parents[1]).encode()])
    with pytest.raises(tool.PackageError, match=said):
        tool.check_wheel(wheel(changes))


def test_a_wheel_for_one_python_alone_is_refused(tool, wheel):
    with pytest.raises(tool.PackageError, match="cp310-abi3-PLATFORM"):
        tool.check_wheel(wheel({}, name="picowsgi-1.2.3-cp311-cp311-linux_x86_64.whl"))


def test_a_tag_has_the_version_and_the_changelog_has_its_section(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "PROJECT", tmp_path)
    (tmp_path / "src/picowsgi").mkdir(parents=True)
    (tmp_path / "src/picowsgi/__init__.py").write_text('__version__ = "1.2.3"\n')
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("## 1.2.30\n\n## Unreleased\n")
    with pytest.raises(tool.PackageError, match=r"expected v1\.2\.3"):
        tool.check_tag("v1.2.4")
    with pytest.raises(tool.PackageError, match=r"expected a section '## 1\.2\.3'"):
        tool.check_tag("v1.2.3")
    changelog.write_text("## 1.2.3 (2026-01-31)\n")
    tool.check_tag("v1.2.3")
