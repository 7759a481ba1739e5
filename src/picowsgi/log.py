"""The error log: one logger, written to standard error as lines of text or of JSON.

Never lets a byte from outside act on the terminal or begin a line of its own.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # which Python 3.10 cannot subscript

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Logger(_Adapter):
    """The logger `picowsgi`. Its calls never raise an Exception, whatever the handlers do.

    A program must not fail because it reports an error. A line that a broken handler loses goes to
    standard error, without its traceback. In the main thread a KeyboardInterrupt or SystemExit may
    be a signal handler's, and is raised. In the threads of a server it would end the server.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Write a record, if the logger is enabled for its level."""
        if not self.isEnabledFor(level):
            return
        kwargs.setdefault("stacklevel", 2)  # the caller's line, not this one
        try:
            super().log(level, msg, *args, **kwargs)
        except BaseException as error:
            if not isinstance(error, Exception) and _is_main_thread():
                raise
            _write_lost(level, msg, args, kwargs.get("exc_info"), error)


_logger = Logger(logging.getLogger("picowsgi"), {})


def get_logger() -> Logger:
    """Return the logger `picowsgi`, to which everything here is written."""
    return _logger


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _write_lost(
    level: int, message: object, args: tuple[object, ...], cause: object, error: BaseException
) -> None:
    """Write a line that the handlers have lost to standard error, if that is possible."""
    with suppress(Exception):
        text = printable(str(message) % args if args else str(message))
        if isinstance(cause, BaseException):
            text += f": {type(cause).__name__}"
        name = logging.getLevelName(level).lower()
        write_standard_error(f"picowsgi: {name}: {text} (logging it failed: {show(error)})\n")


def write_standard_error(text: str) -> None:
    """Write a text to standard error. A missing, closed, full or broken stream loses it."""
    stream = sys.stderr  # once: the application may replace it at any time
    with suppress(Exception):
        stream.write(text)
        stream.flush()


def configure(level: str, form: str = "text") -> None:
    """Write the logger's records from `level` (`debug` to `error`) on to standard error.

    `form` is `text` or `json`. Calling it again changes the level and the form. Without it the
    records go wherever the program that embeds picowsgi sends them.
    """
    logger = _logger.logger
    formatter = _JSONFormatter() if form == "json" else _TextFormatter()
    for handler in logger.handlers:
        if isinstance(handler, _StandardError):
            handler.setFormatter(formatter)
            break
    else:
        handler = _StandardError()
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(level.upper())


def release() -> None:
    """Leave the logger's records to the program: take back what `configure` has done."""
    logger = _logger.logger
    for handler in logger.handlers[:]:
        if isinstance(handler, _StandardError):
            logger.removeHandler(handler)
            logger.propagate = True
            logger.setLevel(logging.NOTSET)


def log_failure(message: str, details: str) -> None:
    """Write an error with details in lines of their own, such as another process's traceback."""
    logger = _logger.logger
    try:
        record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), None)
        record.exc_text = printable_lines(details.rstrip("\n"))
        logger.handle(record)
    except Exception as error:
        _write_lost(logging.ERROR, message, (), None, error)


def reopen() -> None:
    """Open the files that the program logs to again, after a rename.

    A file that cannot be opened is logged, and the old one stays in use.
    """
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.FileHandler):
                try:
                    with handler.lock or nullcontext():
                        old, handler.stream = handler.stream, handler._open()
                        if old is not None:
                            old.close()
                except OSError as error:
                    _logger.error("cannot open a log file again: %s", error)


def printable(text: str) -> str:
    """Return `text` in printable ASCII: all else, and the backslash, as a backslash escape."""
    return text.encode("unicode_escape").decode("ascii")


def printable_lines(text: str) -> str:
    """Return lines in which no control character is left but the line ends."""
    return _CONTROL_BUT_NEWLINE.sub(_escape, text)


def request_line(environ: Mapping[str, Any]) -> str:
    """Return the method and the target in printable ASCII; `?` where they are no text any more."""
    method, target = environ.get("REQUEST_METHOD"), environ.get("REQUEST_URI")
    if type(target) is not str:  # a CGI has the path alone
        target = environ.get("PATH_INFO")
    return " ".join(printable(text) if type(text) is str else "?" for text in (method, target))


def show(value: object) -> str:
    """Return `repr(value)`; an object that has none is named by its type."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} object: {type(error).__name__} in its __repr__>"


def _escape(match: re.Match[str]) -> str:
    return printable(match.group())


class _TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00.123 +0000 [PID] level: message`, and tracebacks indented under it."""

    def format(self, record: logging.LogRecord) -> str:
        message = _CONTROL.sub(_escape, record.getMessage())
        seconds = time.localtime(record.created)
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", seconds)
        zone = time.strftime("%z", seconds)
        level = record.levelname.lower()
        head = f"{stamp}.{int(record.msecs):03d} {zone} [{record.process}] {level}: {message}"
        details = ""
        if record.exc_info:
            details = self.formatException(record.exc_info)
        elif record.exc_text:
            details = record.exc_text
        if record.stack_info:
            details = f"{details}\n{record.stack_info}" if details else record.stack_info
        return f"{head}\n{_indent(details)}" if details else head

    def formatException(  # noqa: N802 (the name is logging's)
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        # Errors quote what the client sent: only line ends survive, and format() indents them.
        return printable_lines(super().formatException(ei))


class _JSONFormatter(_TextFormatter):
    """One object a line: time (RFC 3339), level, pid, message and, of an error, its traceback."""

    def __init__(self) -> None:
        super().__init__()
        import json  # only where it is asked for

        self._dumps = json.dumps

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        elif record.exc_text:
            entry["traceback"] = record.exc_text
        return self._dumps(entry)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


class _StandardError(logging.Handler):
    """Writes to what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        write_standard_error(f"{self.format(record)}\n")
