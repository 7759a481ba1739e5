"""The user and the group that a server runs as.

Never keeps more rights than the options allow: if a right cannot be dropped, that is an error.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from picowsgi.errors import ConfigError


@dataclass(frozen=True)
class Identity:
    """The user and group to run as. `name` is the name of the user; empty: no user is given."""

    uid: int
    gid: int
    name: str

    @property
    def owner(self) -> tuple[int, int] | None:
        """The owner for the files of unix sockets; None: this process cannot change owners."""
        return (self.uid, self.gid) if os.geteuid() == 0 else None

    def assume(self) -> None:
        """Change the process to this user and group, without a way back.

        Does nothing if the process has the user and group already. Raises ConfigError if the
        process may not change.
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

    Raises ConfigError if the user or the group does not exist.
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
    """Return the number of `group`, a name or a number from the option `flag`.

    Raises ConfigError if the group does not exist.
    """
    try:
        entry = grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
    except (KeyError, OverflowError):
        raise ConfigError(f"{flag}: there is no group {group!r}") from None
    return entry.gr_gid
