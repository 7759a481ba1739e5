"""Parses the name of an application: a module or a file, an attribute, and a call with literals.

Never imports a module and never evaluates an expression.
"""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from pathlib import Path

from picowsgi.errors import AppImportError

FORM = "MODULE:ATTRIBUTE, such as app:app, or a path to a .py file"
_FILE = re.compile(r"(.+?\.(?:py|wsgi))(?::(.*))?", re.DOTALL)
_INI = re.compile(r"(.+?\.ini)(?:#(.*))?", re.DOTALL)
_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_LITERALS = "an argument is a literal, such as 'dev', 5, True or ['a', 'b']"


@dataclass(frozen=True)
class Call:
    """The arguments of a factory, and the text between its brackets."""

    args: tuple[object, ...] = ()
    kwargs: tuple[tuple[str, object], ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Spec:
    """The parts of `MODULE:ATTRIBUTE` or `PATH:ATTRIBUTE`.

    `attribute` may have dots; an empty text is a default attribute. `call`: the attribute is a
    factory.
    """

    name: str
    is_file: bool
    attribute: str = ""
    call: Call | None = None


def parse_ini(text: str) -> tuple[str, str] | None:
    """Return the path of a file for PasteDeploy, and the name of an application in it.

    The form is `PATH.ini#NAME`. None: `text` is the name of a module or of another file.
    """
    match = _INI.fullmatch(text)
    return None if match is None else (match[1], match[2] or "main")


def parse_spec(text: str) -> Spec:
    """Return the parts of the name of an application.

    A path ends in `.py` or `.wsgi`, or it has a slash and there is a file. `mysite.wsgi` without a
    slash is a module, as in Django, if there is no such file. Raises AppImportError.
    """
    match = _FILE.fullmatch(text)
    if match:
        name, attribute = match[1], match[2] or ""
        is_file = name.endswith(".py") or os.sep in name or Path(name).is_file()
    else:
        name, _, attribute = text.partition(":")
        is_file = os.sep in name and Path(name).is_file()
    if not attribute:
        return Spec(name, is_file)
    dotted, bracket, _ = attribute.partition("(")
    call = _parse_call(attribute, dotted) if bracket else None
    if not _DOTTED.fullmatch(dotted):
        raise AppImportError(f"{attribute!r} is not the name of an attribute; APP is {FORM}")
    return Spec(name, is_file, dotted, call)


def _parse_call(text: str, dotted: str) -> Call:
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        node = None
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != dotted:
        raise AppImportError(
            f"cannot use {text!r}: a factory is called as NAME() or NAME('text', debug=True)"
        )
    args = tuple(_literal(argument, text) for argument in node.args)
    kwargs: dict[str, object] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise AppImportError(f"cannot use ** in {text!r}: {_LITERALS}")
        if keyword.arg in kwargs:
            raise AppImportError(f"cannot use {text!r}: {keyword.arg} is given twice")
        kwargs[keyword.arg] = _literal(keyword.value, text)
    return Call(args, tuple(kwargs.items()), text[len(dotted) + 1 : -1].strip())


def _literal(node: ast.expr, text: str) -> object:
    try:
        value: object = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise AppImportError(f"cannot use {ast.unparse(node)} in {text!r}: {_LITERALS}") from None
    return value
