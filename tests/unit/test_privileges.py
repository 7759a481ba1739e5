"""The user and the group that a process becomes, without a server."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from picowsgi.errors import ConfigError
from picowsgi.system.privileges import Identity, find_identity


class System:
    """Records the identity that a process would assume."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> None:
        self.calls: list[Any] = []
        self.refuses = False
        for name, value in (("geteuid", uid), ("getuid", uid), ("getegid", gid)):
            monkeypatch.setattr(os, name, lambda value=value: value)
        for name in ("initgroups", "setgroups", "setgid", "setuid"):
            monkeypatch.setattr(os, name, lambda *what, name=name: self._note(name, *what))

    def _note(self, *what: Any) -> None:
        if self.refuses:
            raise PermissionError(1, "Operation not permitted")
        self.calls.append(what)


def test_root_becomes_a_user_with_the_groups_of_that_user(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, 0, 0)
    Identity(5, 6, "eva").assume()
    assert system.calls == [("initgroups", "eva", 6), ("setgid", 6), ("setuid", 5)]
    assert Identity(5, 6, "eva").owner == (5, 6)


def test_root_becomes_a_group_without_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, 0, 0)
    Identity(0, 6, "").assume()
    assert system.calls == [("setgroups", [6]), ("setgid", 6), ("setuid", 0)]


def test_a_process_that_already_has_the_identity_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = System(monkeypatch, 5, 6)
    Identity(5, 6, "eva").assume()
    assert system.calls == []
    assert Identity(5, 6, "eva").owner is None
    for other in (Identity(5, 7, ""), Identity(7, 6, "")):
        with pytest.raises(ConfigError, match="started as root"):
            other.assume()


def test_a_refusal_of_the_system_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    System(monkeypatch, 0, 0).refuses = True
    with pytest.raises(ConfigError, match="cannot become user 5, group 6: Operation not permitted"):
        Identity(5, 6, "eva").assume()


def test_empty_names_mean_no_identity() -> None:
    assert find_identity("", "") is None


def test_names_and_numbers_mean_the_same() -> None:
    assert find_identity("root", "") == find_identity("0", "")
    found = find_identity("root", "")
    assert found is not None
    assert (found.uid, found.gid, found.name) == (0, 0, "root")
    only_group = find_identity("", "0")
    assert only_group is not None
    assert (only_group.uid, only_group.gid, only_group.name) == (os.geteuid(), 0, "")


@pytest.mark.parametrize("name", ["no-such-name", "99999999999999999999"])
def test_users_and_groups_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--user: there is no user"):
        find_identity(name, "")
    with pytest.raises(ConfigError, match="--group: there is no group"):
        find_identity("", name)


def test_only_root_may_become_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = find_identity("root", "root" if sys.platform == "linux" else "wheel")
    assert identity is not None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="started as root"):
        identity.assume()


def test_the_current_user_needs_no_rights() -> None:
    identity = find_identity(str(os.geteuid()), str(os.getegid()))
    assert identity is not None
    identity.assume()
