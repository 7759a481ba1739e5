"""Reads the files of `--env-file` into the environment, with python-dotenv.

Never changes a variable that was set before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from picowsgi.config.option import PREFIX
from picowsgi.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_OWN = f"{PREFIX}ENV_FILE"


class EnvFiles:
    """Files with lines `NAME=VALUE`. If two of them have a variable, the later file wins."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._ours: set[str] = set()

    def apply(self) -> None:
        """Set the variables of the files. Another call reads the files again. Raises ConfigError.

        A variable that a file had before, and has no longer, is removed.
        """
        for name in self._ours:
            os.environ.pop(name, None)
        before = set(os.environ)
        self._ours = set()
        for file in self._files:
            for name, value in _read(file, self._ours).items():
                if name not in before:
                    os.environ[name] = value
                    self._ours.add(name)


def _read(file: Path, earlier: set[str]) -> dict[str, str]:
    """Return the variables of a file. Those of `earlier` files are in the environment already."""
    try:
        from dotenv.main import DotEnv
        from dotenv.parser import parse_stream
    except ImportError:
        raise ConfigError(
            "--env-file needs python-dotenv: pip install 'picowsgi[dotenv]'"
        ) from None
    try:
        with file.open(encoding="utf-8") as stream:
            for binding in parse_stream(stream):
                if binding.key in earlier:  # the file refers to its own value as ${NAME}
                    os.environ.pop(binding.key, None)
                if binding.error:
                    raise ConfigError(f"{file}, {_where(binding.original)}")
        # With override=False a value as ${NAME} is the one that the application sees.
        values = DotEnv(file, encoding="utf-8", override=False).dict()
    except OSError as error:
        raise ConfigError(f"--env-file: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--env-file: {file} is not UTF-8: {error}") from None
    if _OWN in values:
        raise ConfigError(f"{file}: {_OWN} cannot be set in a file of --env-file")
    return {name: value for name, value in values.items() if value is not None}


def _where(original: Any) -> str:
    """Describe a wrong line; python-dotenv counts the empty lines before it as its part."""
    text = original.string.lstrip()
    empty = original.string[: len(original.string) - len(text)].count("\n")
    return f"line {original.line + empty}: expected NAME=VALUE, got {text.rstrip()!r}"
