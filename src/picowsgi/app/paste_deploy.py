"""Files for PasteDeploy, such as Pyramid's `development.ini`: the application, server and logs.

Never imports the package `paste.deploy` without such a file.
"""

from __future__ import annotations

import logging.config
from configparser import Error as ParserError
from configparser import RawConfigParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from picowsgi.app.failure import fail, fail_with_traceback
from picowsgi.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

_SERVER = "server:main"


def load_paste(file: str, name: str) -> object:
    """Return the application `name` of the file. Raises AppImportError."""
    loadwsgi = _loadwsgi(file)
    path = _existing(file)
    try:
        return loadwsgi.loadapp(f"config:{quote(str(path))}", name)
    except LookupError as error:
        # PasteDeploy raises these itself. An error of the application has more frames.
        if _is_of_paste(error, loadwsgi):
            fail(f"{file}: {_one_line(error)}")
        fail_with_traceback(f"loading {file} failed", error)
    except ParserError as error:
        fail(f"{file}: {_one_line(error)}")
    except (Exception, SystemExit) as error:
        fail_with_traceback(f"loading {file} failed", error)


def read_server(file: str) -> tuple[str, Mapping[str, str]]:
    """Return the server that `[server:main]` names, and its options; two empty values: none.

    The server is a text such as `egg:waitress#main`. The function does not import it. Raises
    AppImportError.
    """
    loadwsgi = _loadwsgi(file)
    path = _existing(file)
    try:
        parser = loadwsgi.ConfigLoader(str(path)).parser
        if not parser.has_section(_SERVER):
            return "", {}
        inherited = parser.defaults()
        values: dict[str, str] = {
            key: parser.get(_SERVER, key)
            for key in parser.options(_SERVER)
            if key not in inherited and not key.startswith(("set ", "get "))
        }
    except (ParserError, ValueError) as error:
        fail(f"{file}: {_one_line(error)}")
    return values.pop("use", ""), values


def configure_logging(file: str) -> None:
    """Apply the sections `[loggers]`, `[handlers]` and `[formatters]`, as `pserve` does.

    Without them the function does nothing. Raises AppImportError.
    """
    path = _existing(file)
    defaults = {"__file__": str(path), "here": str(path.parent)}
    try:
        if _sections(file, path).isdisjoint({"loggers"}):
            return
        logging.config.fileConfig(
            path,
            {name: value.replace("%", "%%") for name, value in defaults.items()},
            disable_existing_loggers=False,
        )
    except Exception as error:  # the file names classes and calls them
        fail(f"{file}: its logging sections cannot be used: {_one_line(error)}")


def _loadwsgi(file: str) -> Any:
    try:
        from paste.deploy import loadwsgi
    except ImportError:
        fail(f"{file} needs PasteDeploy: pip install 'picowsgi[paste]'")
    return loadwsgi


def _existing(file: str) -> Path:
    path = Path(file)
    if not path.is_file():
        siblings = [each.name for each in path.parent.glob("*.ini")]
        where = path.parent.resolve()
        fail(f"there is no file {path.name!r} in {where}{did_you_mean(path.name, siblings)}")
    path = path.resolve()
    if "uwsgi" in _sections(file, path):
        fail(f"{file} is a file for uWSGI; name the application, as in picowsgi mysite:app")
    return path


def _sections(file: str, path: Path) -> set[str]:
    parser = RawConfigParser(strict=False, allow_no_value=True)
    try:
        parser.read_string(path.read_text("utf-8"))
    except (OSError, ParserError, UnicodeDecodeError) as error:
        fail(f"{file}: {_one_line(error)}")
    return set(parser.sections())


def _is_of_paste(error: BaseException, loadwsgi: Any) -> bool:
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    return frames is None or frames.tb_frame.f_code.co_filename == loadwsgi.__file__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
