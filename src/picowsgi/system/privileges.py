"""The user and the group that a server runs as.

Never runs with more than was asked for: what cannot be dropped is an error.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from picowsgi.errors import ConfigError


@dataclass(frozen=True)
class Identity:
    """The user and group to run as; `name` is the user's, empty if only the group changes."""

    uid: int
    gid: int
    name: str

    @property
    def owner(self) -> tuple[int, int] | None:
        """What to give files to, by a process that can; None by any other."""
        return (self.uid, self.gid) if os.geteuid() == 0 else None

    def assume(self) -> None:
        """Become it, for good.

        Raises ConfigError where the process may not; being it already is no error.
        """
        if (os.geteuid(), os.getegid()) == (self.uid, self.gid) and os.getuid() == self.uid:
            return
        if os.geteuid() != 0:
            raise ConfigError("--user and --group need the command to be started as root")
        try:
            if self.name:
                os.initgroups(self.name, self.gid)
            else:
                os.setgroups([self.gid])
            os.setgid(self.gid)
            os.setuid(self.uid)
        except OSError as error:
            message = f"cannot become user {self.uid}, group {self.gid}: {error.strerror}"
            raise ConfigError(message) from None


def find_identity(user: str, group: str) -> Identity | None:
    """Return the identity of `user` and `group` (names or numbers); None if both are empty.

    Raises ConfigError for one that does not exist.
    """
    if not user and not group:
        return None
    uid, gid, name = os.geteuid(), os.getegid(), ""
    if user:
        try:
            found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        except (KeyError, OverflowError):
            raise ConfigError(f"--user: there is no user {user!r}") from None
        uid, gid, name = found.pw_uid, found.pw_gid, found.pw_name
    if group:
        gid = find_group(group, "--group")
    return Identity(uid, gid, name)


def find_group(group: str, flag: str) -> int:
    """Return the number of `group`, a name or a number, that the option `flag` has named.

    Raises ConfigError for one that does not exist.
    """
    try:
        entry = grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
    except (KeyError, OverflowError):
        raise ConfigError(f"{flag}: there is no group {group!r}") from None
    return entry.gr_gid
