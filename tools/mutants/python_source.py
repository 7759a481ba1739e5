"""Finds the possible mutations of a Python file with the operators of cosmic-ray. Never runs it.

Skips code that no test can notice: annotations, TYPE_CHECKING blocks, docstrings and log texts.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from .mutation import Candidate, Mutation, mutation

if TYPE_CHECKING:
    from cosmic_ray.operators.operator import Operator

# Comparisons that differ at the bound, and the opposite ones. The tests that notice these notice
# the other comparisons, too.
_COMPARISONS = (
    "Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Lt_GtE GtE_Lt Gt_LtE LtE_Gt Is_IsNot IsNot_Is"
)
_BINARY = (
    "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv BitOr_BitAnd BitAnd_BitOr "
    "LShift_RShift RShift_LShift"
)
_NAMES = [
    *(f"ReplaceComparisonOperator_{pair}" for pair in _COMPARISONS.split()),
    *(f"ReplaceBinaryOperator_{pair}" for pair in _BINARY.split()),
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_Delete_USub",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ExceptionReplacer",
    "NumberReplacer",
    "ZeroIterationForLoop",
]
# cosmic-ray uses an exception of its own, which the file cannot name. This one is never raised.
_FOREIGN_EXCEPTION, _EXCEPTION = "CosmicRayTestingException", "ZeroDivisionError"
_LOGGERS = {"log", "logger", "logging", "get_logger", "warnings"}

Span = tuple[tuple[int, int], tuple[int, int]]  # line and column of the start and the end


def candidates(file: str, source: str) -> list[Candidate]:
    """Return all possible mutations, in the order of the file."""
    tree = ast.parse(source)
    offsets = _Offsets(source)
    ignored = [(offsets.of(*first), offsets.of(*last)) for first, last in _ignored(tree)]
    scopes = _scopes(tree, offsets)

    def made(change: Change | None) -> Mutation | None:
        if change is None:
            return None
        start, end, new, kind = change
        scope = next((one for one in reversed(scopes) if one[1] <= start < one[2]), None)
        if scope is None:  # a line outside of functions
            line_end = source.find("\n", end)
            scope = ("", source.rfind("\n", 0, start) + 1, line_end)
        return mutation(file, source, scope, start, end, new, kind)

    found = []
    for start, kind, make in (*_by_operators(source, offsets), *_dropped(tree, offsets)):
        if not any(first <= start < last for first, last in ignored):
            line = source.count("\n", 0, start) + 1
            found.append((start, Candidate(line, kind, lambda make=make: made(make()))))
    return [one for _, one in sorted(found, key=lambda pair: (pair[0], pair[1].kind))]


class _Offsets:
    """Converts a line and a column to an offset."""

    def __init__(self, source: str) -> None:
        self.lines = source.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def of(self, line: int, column_in_bytes: int) -> int:
        text = self.lines[line - 1].encode()[:column_in_bytes].decode()
        return self.starts[line - 1] + len(text)


def _place(node: ast.AST) -> Span:
    at: Any = node
    return (at.lineno, at.col_offset), (at.end_lineno, at.end_col_offset)


def _scopes(tree: ast.Module, offsets: _Offsets) -> list[tuple[str, int, int]]:
    """Return the qualified name, the start and the end of each function, outer functions first."""
    found: list[tuple[str, int, int]] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}."
                if not isinstance(child, ast.ClassDef):
                    (first, last) = _place(child)
                    found.append((name[:-1], offsets.of(*first), offsets.of(*last)))
            visit(child, name)

    visit(tree, "")
    return found


def _ignored(tree: ast.Module) -> Iterator[Span]:
    for node in ast.walk(tree):
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if annotation is not None:
            yield _place(annotation)
        if isinstance(node, ast.Assert) or _is_for_types(node) or _is_main(node):
            yield _place(node)
        elif isinstance(node, ast.Call) and _is_log(node):
            yield _place(node.func)[1], _place(node)[1]


def _is_for_types(node: ast.AST) -> bool:
    is_check = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return is_check or _is_alias(node)


def _is_log(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    owner = call.func.value
    owner = owner.func if isinstance(owner, ast.Call) else owner
    name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
    return name.strip("_") in _LOGGERS


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _is_alias(node: ast.AST) -> bool:
    """Return whether this defines a type: `Name = X | Y`, or a `TypeVar`."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.BinOp)
        and isinstance(node.value.op, ast.BitOr)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id[0].isupper()
        and not node.targets[0].id.isupper()
    )


Change = tuple[int, int, str, str]  # start, end, new text, kind
Found = tuple[int, str, Callable[[], Change | None]]  # start, kind, how to make it


@cache
def _operators() -> list[tuple[str, Operator]]:
    from cosmic_ray.plugins import get_operator

    return [(name, get_operator(f"core/{name}")()) for name in _NAMES]


def _by_operators(source: str, offsets: _Offsets) -> Iterator[Found]:
    from cosmic_ray.ast import get_ast
    from cosmic_ray.mutating import mutate_code

    counts: dict[str, int] = dict.fromkeys(_NAMES, 0)

    def walk(node: Any) -> Iterator[Found]:
        for name, operator in _operators():
            for (line, column), _ in operator.mutation_positions(node):
                occurrence, kind = counts[name], name.removeprefix("Replace").replace("_", " ")
                counts[name] += 1

                def make(
                    operator: Operator = operator, occurrence: int = occurrence, kind: str = kind
                ) -> Change | None:
                    mutated = mutate_code(source, operator, occurrence)
                    if mutated is None or mutated == source:
                        return None
                    mutated = mutated.replace(_FOREIGN_EXCEPTION, _EXCEPTION)
                    start, end, new = _difference(source, mutated)
                    if kind == "NumberReplacer":
                        new = new.lstrip()
                    # A star among parameters is no multiplication. A mutant must be valid Python.
                    if source[start:].startswith("*,") or not _is_python(mutated):
                        return None
                    return start, end, new, kind

                yield offsets.starts[line - 1] + column, kind, make
        for child in getattr(node, "children", ()):
            yield from walk(child)

    return walk(get_ast(source))


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _difference(old: str, new: str) -> tuple[int, int, str]:
    """Return the part of `old` that `new` replaces, and its replacement."""
    shorter = min(len(old), len(new))
    first = next((at for at in range(shorter) if old[at] != new[at]), shorter)
    last = 0
    while last < shorter - first and old[-1 - last] == new[-1 - last]:
        last += 1
    return first, len(old) - last, new[first : len(new) - last]


def _dropped(tree: ast.Module, offsets: _Offsets) -> Iterator[Found]:
    """Yield mutations that replace calls, assignments to attributes and `return` with `pass`."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                kind = "dropped call"
            elif isinstance(node, ast.Assign | ast.AugAssign) and isinstance(
                node.targets[0] if isinstance(node, ast.Assign) else node.target,
                ast.Attribute | ast.Subscript,
            ):
                kind = "dropped assignment"
            elif isinstance(node, ast.Return) and node is not function.body[-1]:
                kind = "dropped return"
            elif isinstance(node, ast.Raise):
                kind = "dropped raise"
            else:
                continue
            first, last = _place(node)
            start, end = offsets.of(*first), offsets.of(*last)
            yield start, kind, lambda change=(start, end, "pass", kind): change
