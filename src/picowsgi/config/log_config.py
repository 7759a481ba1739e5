"""The file of `--log-config`: a configuration for `logging.config.dictConfig`, in TOML or JSON.

Never opens a log file before the caller applies the configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from picowsgi.errors import ConfigError
from picowsgi.log import release

if TYPE_CHECKING:
    from collections.abc import Callable


def read_log_config(file: str) -> Callable[[], None]:
    """Read the file, and return a function that applies it instead of all other log settings.

    The function opens log files, so call it as the user of `--user`. Both raise ConfigError.
    """
    import json  # these are slow to import, and only this option needs them
    from logging.config import dictConfig

    from picowsgi.config import toml

    path = Path(file)
    try:
        text = path.read_text("utf-8")
        document = json.loads(text) if path.suffix == ".json" else toml.loads(text)
    except OSError as error:
        raise ConfigError(f"--log-config: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--log-config: {path} is no logging configuration: {error}") from None

    def apply() -> None:
        release()
        try:
            dictConfig({"version": 1, "disable_existing_loggers": False, **document})
        except (OSError, ValueError, TypeError, AttributeError, ImportError, KeyError) as error:
            why = error.__cause__ or error
            message = f"--log-config: {path} is no logging configuration: {why}"
            raise ConfigError(message) from None

    return apply
