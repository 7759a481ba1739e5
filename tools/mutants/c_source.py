"""Finds the possible mutations of a C file. Never compiles it.

Reads tokens, not syntax trees. It relies on the style of clang-format, where the braces of a
function are in the first column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .mutation import Candidate, Mutation, mutation

_TOKEN = re.compile(
    r"""(?P<skip>\s+|/\*.*?\*/|//[^\n]*)
    |(?P<directive>(?<![^\n])\#(?:\\\n|/\*.*?\*/|[^\n])*)
    |(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<number>\.?\d(?:[eEpP][+-]|[\w.])*)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<operator><<=|>>=|\.\.\.|->|\+\+|--|&&|\|\||[-+*/%&|^!=<>]=|<<|>>|.)""",
    re.DOTALL | re.VERBOSE,
)
_INTEGER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)$")
_DEFINE = re.compile(r"#define[ \t]+(\w+)[ \t]+\(?(\d+)\b")
_MANY_NUMBERS = 3  # on one line: a table
_SWAPPED = {
    "relation": {"<": "<=", "<=": "<", ">": ">=", ">=": ">"},
    "equality": {"==": "!=", "!=": "=="},
    "logic": {"&&": "||", "||": "&&"},
    "arithmetic": {"+=": "-=", "-=": "+=", "++": "--", "--": "++"},
    "bits": {"|=": "=", "<<": ">>", ">>": "<<"},
    "boolean": {"true": "false", "false": "true"},
}
_BINARY = {
    "+": ("-", "arithmetic"),
    "-": ("+", "arithmetic"),
    "&": ("|", "bits"),
    "|": ("&", "bits"),
}
_TYPES = re.compile(
    r"(const|static|struct|enum|union|unsigned|signed|char|short|int|long|float|double|bool|void|extern)$"
    r"|\w+_t$"
)
_KEYWORDS = {"if", "else", "for", "while", "do", "switch", "case", "default", "return", "sizeof"}
_JUMPS = {"break", "continue", "return", "goto"}


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    start: int
    end: int


def tokens(source: str) -> list[Token]:
    """Return the tokens, without white space and comments. A preprocessor line is one token."""
    found = []
    for match in _TOKEN.finditer(source):
        kind = match.lastgroup or "skip"
        if kind != "skip":
            found.append(Token(kind, match.group(), match.start(), match.end()))
    return found


def functions(source: str) -> list[tuple[str, int, int]]:
    """Return the name, the start and the end of each function."""
    found = []
    for match in re.finditer(r"^\{$(.*?)^\}$", source, re.MULTILINE | re.DOTALL):
        start = max(source.rfind(mark, 0, match.start()) for mark in ("}\n", ";\n", "*/\n", "\n\n"))
        head = source[start + 1 : match.start()]
        name = re.search(r"(\w+)\s*\(", head)
        if name:
            found.append((name.group(1), match.start() - len(head.lstrip()), match.end()))
    return found


def candidates(file: str, source: str) -> list[Candidate]:
    """Return all possible mutations, in the order of the file."""
    return [Candidate(one.line, one.kind, lambda one=one: one) for one in mutations(file, source)]


def mutations(file: str, source: str) -> list[Mutation]:
    found: list[Mutation] = []
    everything = tokens(source)
    for scope in functions(source):
        _, start, end = scope
        body = source.index("\n{", start) + 1
        inner = [token for token in everything if body <= token.start < end]
        for first, last, new, kind in _Function(source, inner).all():
            found.append(mutation(file, source, scope, first, last, new, kind))
    for token in everything:
        match = _DEFINE.match(token.text) if token.kind == "directive" else None
        if match:
            scope = (match.group(1), token.start, token.end)
            start, end = (token.start + at for at in match.span(2))
            for new in _other_numbers(match.group(2)):
                found.append(mutation(file, source, scope, start, end, new, "constant"))
    return sorted(found, key=lambda one: (one.start, one.end, one.kind))


def _other_numbers(text: str) -> list[str]:
    match = _INTEGER.match(text)
    if not match:
        return []
    digits, suffix = match.groups()
    octal = digits.startswith("0") and digits.isdigit() and digits != "0"
    value = int(digits, 8 if octal else 0)
    if value == 1:
        return ["0" + suffix, "2" + suffix]
    return [str(value + 1) + suffix]


Change = tuple[int, int, str, str]  # start, end, new text, kind


class _Function:
    def __init__(self, source: str, inner: list[Token]) -> None:
        self.source = source
        self.tokens = [token for token in inner if token.kind != "directive"]
        self.closing = self._pairs()

    def all(self) -> Iterator[Change]:
        """Yield all useful changes, except for those inside of assertions."""
        asserted = [
            range(token.start, self.tokens[self.closing[at + 1]].end)
            for at, token in enumerate(self.tokens[:-1])
            if token.text in {"assert", "static_assert"} and at + 1 in self.closing
        ]
        for change in (*self._operators(), *self._conditions(), *self._statements()):
            if not any(change[0] in span for span in asserted):
                yield change

    def _pairs(self) -> dict[int, int]:
        pairs, opened = {}, []
        for at, token in enumerate(self.tokens):
            if token.kind != "operator":
                continue
            if token.text in "([{":
                opened.append(at)
            elif token.text in ")]}" and opened:
                pairs[opened.pop()] = at
        return pairs

    def _operators(self) -> Iterator[Change]:
        for at, token in enumerate(self.tokens):
            start, end, text = token.start, token.end, token.text
            for kind, swapped in _SWAPPED.items():
                if text in swapped and token.kind != "text":
                    yield start, end, swapped[text], kind
            before = self.tokens[at - 1] if at else None
            is_value = before is not None and (
                before.text in {")", "]"}
                or before.kind == "number"
                or (before.kind == "name" and before.text not in _KEYWORDS | {"case"})
            )
            cast = before is not None and before.text == ")" and self._is_cast(at - 1)
            if token.kind == "operator" and text in _BINARY and is_value and not cast:
                new, kind = _BINARY[text]
                yield start, end, new, kind
            elif text == "!" and token.kind == "operator":
                yield start, end, "", "negation"
            elif text == "-" and not is_value and self.tokens[at + 1].kind == "number":
                yield start, end, "", "arithmetic"
            elif token.kind == "number":
                for new in _other_numbers(text):
                    yield start, end, new, "constant"

    def _is_cast(self, closing: int) -> bool:
        """Return whether these parentheses contain a type, so no binary operator follows."""
        opening = next((start for start, end in self.closing.items() if end == closing), None)
        if opening is None:
            return False
        inner = self.tokens[opening + 1 : closing]
        return (
            bool(inner)
            and all(
                token.text == "*" or _TYPES.match(token.text) or token.text.startswith("pw_")
                for token in inner
            )
            and bool(_TYPES.match(inner[0].text) or inner[-1].text == "*")
        )

    def _conditions(self) -> Iterator[Change]:
        for at, token in enumerate(self.tokens):
            if token.kind == "name" and token.text in {"if", "while"} and at + 1 in self.closing:
                inner = [one.text for one in self.tokens[at + 2 : self.closing[at + 1]]]
                start, end = self.tokens[at + 1].end, self.tokens[self.closing[at + 1]].start
                # A condition that is one comparison, or has one "!", already has this mutation.
                if (inner[0] not in {"!", "true"} and {"==", "!="}.isdisjoint(inner)) or (
                    not {"&&", "||"}.isdisjoint(inner)
                ):
                    yield start, end, f"!({self.source[start:end]})", "condition"

    def _statements(self) -> Iterator[Change]:
        for at in self._beginnings():
            token = self.tokens[at]
            end = self._end_of_statement(at)
            if end is None or (token.kind != "name" and token.text not in {"*", "(", "++", "--"}):
                continue
            if token.text in _JUMPS:
                yield token.start, self.tokens[end].start, "", token.text
            elif token.text not in _KEYWORDS and not self._is_declaration(at, end):
                is_call = not any(
                    part.text in {"=", "+=", "-=", "|=", "&=", "++", "--", "<<=", ">>="}
                    for part in self._outer(at, end)
                )
                yield (
                    token.start,
                    self.tokens[end].start,
                    "",
                    "dropped call" if is_call else "dropped assignment",
                )

    def _beginnings(self) -> Iterator[int]:
        controls = {
            self.closing[at + 1]
            for at, token in enumerate(self.tokens[:-1])
            if token.text in {"if", "for", "while", "switch"} and at + 1 in self.closing
        }
        depth = 0
        for at, token in enumerate(self.tokens[:-1]):
            depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "operator" else 0
            if depth == 0 and (
                token.text in {";", "{", "}", "else", "do"}
                or at in controls
                or (token.text == ":" and self._is_label(at))
            ):
                yield at + 1

    def _is_label(self, at: int) -> bool:
        before = self.tokens[at - 2].text if at >= 2 else ""
        return before == "case" or self.tokens[at - 1].text == "default" or before in {";", "}"}

    def _end_of_statement(self, at: int) -> int | None:
        while at < len(self.tokens):
            text = self.tokens[at].text
            if text == ";":
                return at
            if text in {"{", "}"} and at not in self.closing:
                return None
            at = self.closing[at] + 1 if at in self.closing else at + 1
        return None

    def _outer(self, at: int, end: int) -> Iterator[Token]:
        while at < end:
            yield self.tokens[at]
            at = self.closing[at] if at in self.closing else at + 1

    def _is_declaration(self, at: int, end: int) -> bool:
        first, second = self.tokens[at], self.tokens[at + 1]
        if _TYPES.match(first.text):
            return True
        if first.kind != "name":
            return False
        return second.kind == "name" or (
            second.text == "*" and at + 2 < end and self.tokens[at + 2].kind == "name"
        )
