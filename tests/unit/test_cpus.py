"""How many CPUs count as usable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from picowsgi.system.cpus import usable_cpus


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


def test_where_the_system_knows_no_affinity_all_cpus_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("maximum", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 3), ("1000 100000", 1), ("x", 8)],
)
def test_a_quota_of_version_2_bounds_them(tmp_path: Path, maximum: str, expected: int) -> None:
    files = {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": maximum + "\n"}
    assert usable_cpus(write(tmp_path, files)) == expected


def test_the_least_quota_on_the_way_to_the_top_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
        "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/cpu.max": "600000 100000\n",
    }
    assert usable_cpus(write(tmp_path, files)) == 3


def test_in_a_container_the_groups_own_files_may_stand_at_the_top(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/of/the/host\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}
    assert usable_cpus(write(tmp_path, files)) == 4


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("150000", 2), ("", 8)])
def test_a_quota_of_version_1_bounds_them(tmp_path: Path, quota: str, expected: int) -> None:
    files = {
        "proc/self/cgroup": "5:memory:/a\n4:cpu,cpuacct:/a\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": quota + "\n",
        "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
    }
    assert usable_cpus(write(tmp_path, files)) == expected
