"""Completes options and values in a shell, by click: `_PICOWSGI_COMPLETE=bash_source picowsgi`.

Never reads a configuration, and never imports an application.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import click
    from click.shell_completion import CompletionItem

    from picowsgi.config.option import Option

VARIABLE = "_PICOWSGI_COMPLETE"


def complete(program: str, command: click.Command, words: dict[str, click.Command]) -> int:
    """Print the script for a shell, or the words that fit; return the exit status.

    The variable has the request, as `bash_source`. `words` are the commands that the first argument
    may name.
    """
    from click.shell_completion import shell_complete  # only a shell needs it

    request = os.environ[VARIABLE]
    typed = os.environ.get("COMP_WORDS", "").split()
    if len(typed) > 2 and typed[1] in words:
        command = words[typed[1]]
        os.environ["COMP_WORDS"] = " ".join([typed[0], *typed[2:]])
        place = os.environ.get("COMP_CWORD", "")
        if place.isdigit() and not request.startswith("fish"):  # fish gives the word, not its place
            os.environ["COMP_CWORD"] = str(int(place) - 1)
    return shell_complete(command, {}, program, VARIABLE, request)


def values_of(
    option: Option,
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return the function that completes the value of an option."""
    known = ("auto",) if option.kind == "workers" else option.choices

    def find(
        _context: click.Context, _parameter: click.Parameter, typed: str
    ) -> list[CompletionItem]:
        if option.metavar in ("FILE", "DIR"):
            return paths(option.metavar, typed)
        from click.shell_completion import CompletionItem

        return [CompletionItem(value) for value in known if value.startswith(typed)]

    return find


def paths(metavar: str, typed: str) -> list[CompletionItem]:
    """Return the item that makes the shell complete a file or a directory."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="dir" if metavar == "DIR" else "file")]
