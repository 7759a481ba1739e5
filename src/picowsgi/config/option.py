"""The type of an option: its names, its kind, and the conversion from a text to a checked value.

Never reads a value from its source: `load` does.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from picowsgi.system.cpus import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Kind = Literal["int", "size", "seconds", "str", "choice", "list", "flag", "octal", "workers"]
T = TypeVar("T")

PREFIX = "PICOWSGI_"

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_SIZE = re.compile(r"([0-9]{1,19})\s*(?:([KMG])(?:iB)?|B)?", re.IGNORECASE)
_SECONDS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\s*([smh]?)")
_OCTAL = re.compile(r"(?:0o)?[0-7]{1,4}")
_SWITCH = {"on": True, "true": True, "yes": True, "1": True}
_SWITCH |= {"off": False, "false": False, "no": False, "0": False}
UNSET = -1  # value of an octal option: keep the default of the system
_METAVARS = {
    "int": "N",
    "size": "SIZE",
    "seconds": "TIME",
    "str": "TEXT",
    "choice": "NAME",
    "list": "TEXT",
    "flag": "",
    "octal": "MODE",
    "workers": "N",
}
_SIZE_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB}
_SECONDS_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def flag_of(name: str) -> str:
    """Return the form of a name on the command line."""
    return "--" + name.replace("_", "-")


def split_list(text: str) -> list[str]:
    """Return the texts between the commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


@dataclass(frozen=True)
class Option:
    """One option of the table; `name` is the name of its field in `Settings`.

    `minimum` and `maximum` are inclusive; for a size they are bytes. `check` gets one text of a
    `str` or a `list`, and raises a ValueError that says what was expected. `switch`: on the command
    line the option is a pair of flags, for `on` and `off`. `everyday`: `--help` shows the option;
    otherwise only `--help-all` does. `commas`: each text of a `list` may be several texts, with
    commas between them. `short`: the letter of a short form, such as `b` for `-b`. `command_only`:
    the option is about how the command finds the application, which a caller in Python has already.
    """

    name: str
    default: object
    kind: Kind
    help: str
    group: str
    metavar: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    check: Callable[[str], object] | None
    switch: bool
    everyday: bool
    commas: bool
    short: str = ""
    command_only: bool = False

    @property
    def flags(self) -> list[str]:
        """The names of the option on the command line, its short form first."""
        return [f"-{self.short}", self.flag] if self.short else [self.flag]

    @property
    def flag(self) -> str:
        """The option's name on the command line."""
        return flag_of(self.name)

    @property
    def variable(self) -> str:
        """The option's name in the environment."""
        return PREFIX + self.name.upper()

    @property
    def expected(self) -> str:
        """A description of the valid values, as a phrase after "expected"."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        what, examples = {
            "int": ("a whole number", ""),
            "size": ("a size", ", such as 65536, 64K or 1 MiB"),
            "seconds": ("a time", ", such as 10, 2.5, 10s or 1m"),
            "str": ("text", ""),
            "list": ("texts", ""),
            "flag": ("true or false", ""),
            "octal": ("octal digits from 0 to 777", ", such as 022"),
            "workers": ("auto or a whole number", ""),
        }[self.kind]
        limits = ""
        if self.kind == "octal":
            return what + examples
        if self.minimum is not None and self.maximum is not None:
            limits = f" from {self.show(self.minimum)} to {self.show(self.maximum)}"
        return what + limits + examples

    def show(self, value: object) -> str:
        """Return `value` as a text that `convert` turns into the same value."""
        if self.kind == "size":
            return _show_size(cast("int", value))
        if self.kind == "seconds":
            return f"{value:g}s"
        if self.kind == "list":
            return ",".join(cast("tuple[str, ...]", value))
        if self.kind == "flag":
            return "on" if value else "off"
        if self.kind == "octal":
            return "" if value == UNSET else f"{value:03o}"
        return str(value)

    def convert(self, value: object) -> object:
        """Return the checked value for `value`, which is text or has the option's own type.

        Raises ValueError, whose text says what was expected. `refused` finds the wrong part of
        several texts.
        """
        converted = _CONVERTERS[self.kind](self, value)
        if converted is None:
            raise ValueError(self.expected)
        if isinstance(converted, (int, float)):
            below = self.minimum is not None and converted < self.minimum
            if below or (self.maximum is not None and converted > self.maximum):
                raise ValueError(self.expected)
        return converted

    def refused(self, value: object) -> object:
        """Return the part of a value that `convert` refuses: one text of a list, or the value."""
        if self.kind == "list" and isinstance(value, str):
            value = split_list(value)
        if self.kind == "list" and isinstance(value, (list, tuple)):
            for item in value:
                try:
                    self.convert([item])
                except ValueError:
                    return item
        return value


# The converters return None for a value that they cannot read; Option.convert raises the error.


def _to_int(_option: Option, value: object) -> int | None:
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value.strip()) else None
    # In Python True and False are ints, but no user means them as a number.
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _to_size(option: Option, value: object) -> int | None:
    if not isinstance(value, str):
        return _to_int(option, value)
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        return None
    return int(match[1]) * _SIZE_UNITS[(match[2] or "").upper()]


def _to_seconds(_option: Option, value: object) -> float | None:
    if isinstance(value, str):
        match = _SECONDS.fullmatch(value.strip())
        return float(match[1]) * _SECONDS_UNITS[match[2]] if match else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _to_text(option: Option, value: object) -> str | None:
    if not isinstance(value, str):
        return None
    if option.check is not None:
        option.check(value)
    return value


def _to_choice(option: Option, value: object) -> str | None:
    wanted = _to_flag(option, value) if option.switch else None
    if wanted is not None:
        return "on" if wanted else "off"
    if not isinstance(value, str):
        return None
    name = value.strip().lower()
    return name if name in option.choices else None


def _to_list(option: Option, value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = split_list(value)
    if not isinstance(value, (list, tuple)):
        return None
    if option.commas and all(isinstance(item, str) for item in value):
        value = [part for item in value for part in split_list(item)]
    texts = [_to_text(option, item) for item in value]
    return None if None in texts else cast("tuple[str, ...]", tuple(texts))


def _to_flag(_option: Option, value: object) -> bool | None:
    if isinstance(value, str):
        return _SWITCH.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _to_octal(option: Option, value: object) -> int | None:
    if isinstance(value, str):
        if not value.strip():
            return UNSET
        return int(value, 8) if _OCTAL.fullmatch(value.strip()) else None
    return _to_int(option, value)


def _to_workers(option: Option, value: object) -> int | None:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return usable_cpus()
    return _to_int(option, value)


_CONVERTERS: dict[Kind, Callable[[Option, object], object]] = {
    "int": _to_int,
    "size": _to_size,
    "seconds": _to_seconds,
    "str": _to_text,
    "choice": _to_choice,
    "list": _to_list,
    "flag": _to_flag,
    "octal": _to_octal,
    "workers": _to_workers,
}


def _show_size(size: int) -> str:
    for name, unit in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return str(size)


class Section:
    """A section of the table: the help text and the reference list its options together."""

    def __init__(self, title: str) -> None:
        self._title = title

    def option(
        self,
        default: T,
        *,
        kind: Kind,
        help: str,  # noqa: A002 (the word that click and argparse use)
        metavar: str | None = None,
        minimum: float | None = None,
        maximum: float | None = None,
        choices: tuple[str, ...] = (),
        check: Callable[[str], object] | None = None,
        switch: bool = False,
        everyday: bool = False,
        commas: bool = False,
        short: str = "",
        command_only: bool = False,
    ) -> T:
        """Declare a field of `Settings` as an option. The arguments are those of `Option`.

        Without a `metavar` the option has the default of its kind.
        """
        details = {
            "default": default,
            "kind": kind,
            "help": help,
            "group": self._title,
            "metavar": _METAVARS[kind] if metavar is None else metavar,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "check": check,
            "switch": switch,
            "everyday": everyday,
            "commas": commas,
            "short": short,
            "command_only": command_only,
        }
        return field(default=default, metadata={"option": details})
