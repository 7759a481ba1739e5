"""The options of a `[server:main]` section for PasteDeploy, which are texts.

Never reads a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from picowsgi.config.load import Section
from picowsgi.config.option import split_list
from picowsgi.config.settings import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The options with an address. Those of `_ALIASES` have other names in the table of options.
ADDRESS = ("host", "port", "listen", "unix_socket", "unix_socket_perms")
_ALIASES = {"unix_socket_perms": "unix_socket_mode"}


def make_section(values: Mapping[str, str], file: str, *, only_address: bool = False) -> Section:
    """Return the section's options. `only_address` leaves out all but the address.

    `listen` has addresses with spaces between them, as for waitress. Each line of a repeatable
    option may have one of its values.
    """
    options: dict[str, object] = {}
    binds: list[str] = []
    for key, value in values.items():
        if only_address and key not in ADDRESS:
            continue
        name = _ALIASES.get(key, key)
        if key == "listen":
            binds += [_bind(text) for text in value.replace(",", " ").split()]
        elif key == "unix_socket":
            binds.append(f"unix:{value}")
        elif name == "host":
            options[name] = "0.0.0.0" if value == "*" else value  # noqa: S104 (the user asks for it)
        elif name in OPTIONS and OPTIONS[name].kind == "list":
            options[name] = split_list(value.replace("\n", ","))
        else:
            options[name] = value
    if binds:
        given = options.get("bind", [])
        options["bind"] = [*given, *binds] if isinstance(given, list) else binds
    return Section(options, f"the server section of {file}")


def _bind(text: str) -> str:
    return text.removeprefix("*") if text.startswith("*:") else text
