"""The errors of a load: with the application's own traceback, if its code has raised the error.

Never ends the process.
"""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from typing import Any, NoReturn

from picowsgi.errors import AppImportError

# The names of importlib's own files begin with these texts, on CPython and on PyPy.
_IMPORTLIB = ("<frozen importlib", "<builtin>/frozen importlib")
_HERE = str(Path(__file__).parent)


def fail(message: str) -> NoReturn:
    """Raise AppImportError."""
    raise AppImportError(message)


def fail_with_traceback(what: str, error: BaseException) -> NoReturn:
    """Raise AppImportError with the part of the error's traceback that begins in the application.

    `what` is the step that failed, with its verb, as `importing mysite failed`.
    """
    if isinstance(error, SystemExit):
        what = f"{what}: it ended the program"
    text = "".join(traceback.format_exception(type(error), error, application_frames(error)))
    kind = type(error).__name__
    message = f"{what} with {kind}; its own traceback says where"
    raise AppImportError(message, application_traceback=text) from error


def application_frames(error: BaseException) -> Any:
    """Return the part of the error's traceback that begins in the application; None: no part."""
    frames = error.__traceback__
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _is_machinery(filename: str) -> bool:
    if filename == importlib.__file__ or filename.startswith(_IMPORTLIB):
        return True
    return str(Path(filename).parent) == _HERE
