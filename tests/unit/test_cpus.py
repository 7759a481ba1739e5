"""The number of usable CPUs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from picowsgi.system.cpus import has_gil, usable_cpus


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8


def test_all_cpus_count_when_the_system_has_no_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("maximum", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 3),
        ("1000 100000", 1),
        ("x", 8),
        ("x 100000", 8),
        ("9 0", 8),
    ],
)
def test_a_quota_of_version_2_limits_the_cpus(tmp_path: Path, maximum: str, expected: int) -> None:
    files = {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": maximum + "\n"}
    assert usable_cpus(write(tmp_path, files)) == expected


def test_the_smallest_quota_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
        "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/cpu.max": "600000 100000\n",
    }
    assert usable_cpus(write(tmp_path, files)) == 3


def test_in_a_container_the_root_may_have_the_files_of_the_group(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/of/the/host\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}
    assert usable_cpus(write(tmp_path, files)) == 4


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("150000", 2), ("", 8)])
def test_a_quota_of_version_1_limits_the_cpus(tmp_path: Path, quota: str, expected: int) -> None:
    files = {
        "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": quota + "\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
    }
    assert usable_cpus(write(tmp_path, files)) == expected


@pytest.mark.parametrize("period", ["", "0", "x"])
def test_a_quota_without_a_period_is_no_limit(tmp_path: Path, period: str) -> None:
    files = {
        "proc/self/cgroup": "4:cpu:/a\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": period,
    }
    assert usable_cpus(write(tmp_path, files)) == 8


def test_a_file_that_is_not_text_is_ignored(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": ""})
    (tmp_path / "sys/fs/cgroup/cpu.max").write_bytes(b"\xff\xfe")
    assert usable_cpus(tmp_path) == 8


def test_groups_of_other_controllers_are_ignored(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "9:memory:/a\n8:name=systemd:/a\n4:cpu:/a\n0::/a\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/a/cpu.max": "500000 100000\n",
    }
    assert usable_cpus(write(tmp_path, files)) == 3


def test_files_above_the_control_groups_are_not_read(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a\n",
        "sys/fs/cgroup/a/x": "",
        "sys/fs/cpu.max": "1000 100000",
    }
    assert usable_cpus(write(tmp_path, files)) == 8


@pytest.mark.parametrize(("enabled", "expected"), [(None, True), (True, True), (False, False)])
def test_a_python_has_the_gil_unless_it_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, enabled: bool | None, expected: bool
) -> None:
    if enabled is None:
        monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    else:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: enabled, raising=False)
    assert has_gil() is expected
