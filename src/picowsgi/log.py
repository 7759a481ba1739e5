"""The error log: one logger that writes lines of text or JSON to standard error or a file.

Never lets a byte from outside control the terminal or begin a line of its own.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import threading
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from picowsgi.errors import ConfigError
from picowsgi.line_output import LineOutput, open_log

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from types import TracebackType

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter  # Python 3.10 cannot subscript it

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


_RESET = "\x1b[0m"
_COLOURS = {
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[1;31m",
    logging.CRITICAL: "\x1b[1;31m",
}


class Logger(_Adapter):
    """The logger `picowsgi`. Its calls never raise an Exception, even if a handler does.

    A program must not fail because it reports an error. If a broken handler loses a line, the line
    goes to standard error, without its traceback. In the main thread, a KeyboardInterrupt or
    SystemExit may come from a signal handler, so the call raises it. In other threads the call does
    not raise it, because it would end the server.
    """

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        """Keep the keywords of a call, such as `extra` with a `request_id`, for its record."""
        return msg, kwargs

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
    """Return the logger `picowsgi`, which all modules of this package use."""
    return _logger


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _write_lost(
    level: int, message: object, args: tuple[object, ...], cause: object, error: BaseException
) -> None:
    """Write a line that the handlers have lost to standard error, if possible."""
    with suppress(Exception):
        text = printable(str(message) % args if args else str(message))
        if isinstance(cause, BaseException):
            text += f": {type(cause).__name__}"
        name = logging.getLevelName(level).lower()
        write_error_log(f"picowsgi: {name}: {text} (logging it failed: {show(error)})\n")


def write_standard_error(text: str) -> None:
    """Write whole lines to standard error, without waiting long for its reader.

    If the stream is missing, closed, full or broken, the lines are lost.
    """
    stream = sys.stderr  # once: the application may replace it at any time
    with suppress(Exception):
        descriptor = _descriptor_of(stream)
        if descriptor >= 0:
            _output.write(descriptor, text.encode(stream.encoding, "backslashreplace"))
        else:
            stream.write(text)
            stream.flush()


def _descriptor_of(stream: Any) -> int:
    """Return the descriptor that a stream writes to; -1 if it is not Python's own kind of file."""
    if type(stream) is io.TextIOWrapper:
        with suppress(OSError, ValueError):  # it writes to memory, or is closed
            return stream.fileno()
    return -1


def writes_lines() -> bool:
    """Return whether the error log is a descriptor. Lines are best written whole there."""
    return has_error_log() or _descriptor_of(sys.stderr) >= 0


class _File:
    """The file of the error log; a descriptor of -1: the log goes to standard error."""

    def __init__(self) -> None:
        self.path = ""
        self.descriptor = -1

    def open(self, path: str, mode: int) -> None:
        self.path = path
        self.descriptor = open_log(path, mode)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def reopen(self) -> None:
        _output.replace(self.descriptor, open_log(self.path))


_file = _File()


def open_error_log(path: str, mode: int = 0o644) -> None:
    """Write the error log to this file from now on. A new file gets the permissions `mode`.

    Raises ConfigError if the file cannot be opened.
    """
    try:
        _file.open(path, mode)
    except OSError as error:
        raise ConfigError(f"--error-log: cannot open {path}: {error.strerror}") from None


def has_error_log() -> bool:
    """Return whether the error log is a file of its own."""
    return _file.descriptor >= 0


def write_error_log(text: str) -> None:
    """Write whole lines to the error log, without waiting long for its reader."""
    if _file.descriptor < 0:
        write_standard_error(text)
    else:
        with suppress(Exception):
            _output.write(_file.descriptor, text.encode("utf-8", "backslashreplace"))


def write_complaint(text: str) -> None:
    """Write a text that the application has written to `wsgi.errors`."""
    if is_json():
        text = "".join(format_json(line, level=logging.ERROR) for line in text.splitlines())
    write_error_log(text)


def _describe_lost(count: int) -> bytes:
    """Return the line that reports the number of dropped lines."""
    message = "%d lines of the error log were dropped because its output was full"
    logger = _logger.logger
    record = logger.makeRecord(
        logger.name, logging.WARNING, __file__, 0, message, (count,), None, "_describe_lost"
    )
    formatter = next((one.formatter for one in logger.handlers if isinstance(one, _ErrorLog)), None)
    return f"{(formatter or _TextFormatter()).format(record)}\n".encode()


_output = LineOutput(_describe_lost)


def configure(
    level: str, form: str = "text", *, terminal: bool = False, colour: bool = False
) -> None:
    """Write the logger's records to the error log, from `level` (`debug` to `error`) upwards.

    `form` is `text` or `json`. In a `terminal` a line of text begins with the time of day only, as
    in the access log. With `colour` a level above `info` has a colour. Another call replaces these
    settings. Without a call, the logging configuration of the embedding program decides where the
    records go. The function closes a file that `open_error_log` has opened.
    """
    _file.close()
    logger = _logger.logger
    formatter = _JSONFormatter() if form == "json" else _TextFormatter(terminal, colour)
    for handler in logger.handlers:
        if isinstance(handler, _ErrorLog):
            handler.setFormatter(formatter)
            break
    else:
        handler = _ErrorLog()
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(level.upper())


def release() -> None:
    """Undo `configure`: the logging configuration of the program handles the records again."""
    logger = _logger.logger
    for handler in logger.handlers[:]:
        if isinstance(handler, _ErrorLog):
            logger.removeHandler(handler)
            logger.propagate = True
            logger.setLevel(logging.NOTSET)


def log_failure(message: str, traceback: str) -> None:
    """Write an error with the traceback of another process."""
    record = _make_error(message)
    record.exc_text = printable_lines(traceback.rstrip("\n"))
    _handle(record)


def log_stack(message: str, stack: str, request_id: str = "") -> None:
    """Write an error with the stack of another thread, and the id of that thread's request."""
    record = _make_error(message)
    record.request_id = request_id
    record.stack_info = printable_lines(stack.rstrip("\n"))
    _handle(record)


def _make_error(message: str) -> logging.LogRecord:
    logger = _logger.logger
    return logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "%s", (message,), None)


def _handle(record: logging.LogRecord) -> None:
    try:
        _logger.logger.handle(record)
    except Exception as error:
        _write_lost(record.levelno, record.getMessage(), (), None, error)


def is_json() -> bool:
    """Return whether `configure` has set the format `json`."""
    return any(isinstance(one.formatter, _JSONFormatter) for one in _logger.logger.handlers)


def format_json(message: str, *, level: int = logging.INFO, traceback: str = "") -> str:
    """Return a line with one JSON object, as in the error log."""
    logger = _logger.logger
    record = logger.makeRecord(logger.name, level, __file__, 0, "%s", (message,), None)
    record.exc_text = printable_lines(traceback.rstrip("\n")) or None
    return f"{_JSONFormatter().format(record)}\n"


def reopen() -> None:
    """Open the program's log files again, after a rotation has renamed them.

    If a file cannot be opened, the function logs that, and the old file stays in use.
    """
    if has_error_log():
        try:
            _file.reopen()
        except OSError as error:
            _logger.error("cannot open the error log again: %s", error)
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
    """Return `text` in printable ASCII: other characters and the backslash become escapes."""
    return text.encode("unicode_escape").decode("ascii")


def printable_lines(text: str) -> str:
    """Return `text` with an escape for each control character except for line ends."""
    return _CONTROL_BUT_NEWLINE.sub(_escape, text)


def request_line(environ: Mapping[str, Any]) -> str:
    """Return the method and the target in printable ASCII.

    A `?` replaces a value that the application has removed, or changed to another type.
    """
    method, target = environ.get("REQUEST_METHOD"), environ.get("REQUEST_URI")
    if type(target) is not str:  # the environ of a CGI script has no REQUEST_URI
        target = environ.get("PATH_INFO")
    return " ".join(printable(text) if type(text) is str else "?" for text in (method, target))


def show(value: object) -> str:
    """Return `repr(value)`; if that raises an exception, the type of `value` and the exception."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} object: {type(error).__name__} in its __repr__>"


def _escape(match: re.Match[str]) -> str:
    return printable(match.group())


class _TextFormatter(logging.Formatter):
    """`2026-01-31 12:00:00.123 +0000 [PID] level: message`, with indented tracebacks below.

    In a terminal the line is `12:00:00 level: message`.
    """

    def __init__(self, terminal: bool = False, colour: bool = False) -> None:
        super().__init__()
        self._terminal = terminal
        self._colours = _COLOURS if colour else {}

    def format(self, record: logging.LogRecord) -> str:
        message = _CONTROL.sub(_escape, record.getMessage())
        seconds = time.localtime(record.created)
        level = f"{record.levelname.lower()}:"
        if record.levelno in self._colours:
            level = f"{self._colours[record.levelno]}{level}{_RESET}"
        if self._terminal:
            head = f"{time.strftime('%H:%M:%S', seconds)} {level} {message}"
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", seconds)
            zone = time.strftime("%z", seconds)
            milliseconds = int(record.msecs)
            head = f"{stamp}.{milliseconds:03d} {zone} [{record.process}] {level} {message}"
        request_id = getattr(record, "request_id", "")
        if request_id:
            head += f" (request {request_id})"
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
        # Errors quote bytes from the client: only line ends stay, and format() indents the lines.
        return printable_lines(super().formatException(ei))


class _JSONFormatter(_TextFormatter):
    """One object in a line: time (ISO 8601), level, pid and message.

    The object also has the request id, the traceback and the stack of a thread, if there are any.
    """

    def __init__(self) -> None:
        super().__init__()
        import json  # slow to import, and only this format needs it

        self._dumps = json.dumps

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        request_id = getattr(record, "request_id", "")
        if request_id:
            entry["request_id"] = request_id
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        elif record.exc_text:
            entry["traceback"] = record.exc_text
        if record.stack_info:
            entry["stack"] = record.stack_info
        return self._dumps(entry)


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


class _ErrorLog(logging.Handler):
    """Writes to the file of the error log, or to the current `sys.stderr`."""

    def emit(self, record: logging.LogRecord) -> None:
        write_error_log(f"{self.format(record)}\n")
