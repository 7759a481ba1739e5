"""A row of the tables of equivalents: the options of another server, and those of picowsgi.

Never names an option that the table of options does not have; a test checks that.
"""

from __future__ import annotations

from typing import NamedTuple

#: Values of `Row.ours` that are no options.
NOTHING = "not there"
DEFAULT = "the default"
ARGUMENT = "the argument"

TLS = "picowsgi has no TLS yet: use TLS in [a proxy in front](deployment.md#nginx-in-front)"
HTTP_ONLY = "picowsgi supports HTTP/1.1 only; a proxy in front can speak other versions"
WSGI_ONLY = "picowsgi supports WSGI only"
TUNING = "picowsgi needs no tuning here"


class Row(NamedTuple):
    """Options of another server with the same equivalent.

    `theirs` has their names, with commas between them. `ours` has the options of picowsgi, with
    commas between them, or one of the values above. `note` is Markdown without a period at its end:
    the difference, the reason or what to do.
    """

    theirs: str
    ours: str
    note: str = ""

    @property
    def names(self) -> list[str]:
        """The other server's names."""
        return self.theirs.split(", ")
