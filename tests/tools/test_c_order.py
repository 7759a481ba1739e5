"""tools/c_order.py finds C files that use a later one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
ORDER = "# two files\nfirst   text of any kind\n\npair (a b)\nlast\n"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("c_order", TOOLS / "c_order.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(TOOLS))  # it imports flags, as a program does from its own folder
    sys.modules["c_order"] = module  # a dataclass looks for it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
        del sys.modules["c_order"]
    return module


@pytest.fixture
def folder(tmp_path):
    """C files that all keep the order."""
    (tmp_path / "first.h").write_text("int first(void);\n")
    (tmp_path / "first.c").write_text('#include "first.h"\nint first(void) { return 1; }\n')
    (tmp_path / "pair.h").write_text('#include "first.h"\nint a(void);\nint b(void);\n')
    (tmp_path / "a.c").write_text('#include "pair.h"\nint a(void) { return first(); }\n')
    (tmp_path / "b.c").write_text('#include "pair.h"\nint b(void) { return a(); }\n')
    (tmp_path / "last.c").write_text(
        '#include "pair.h"\nint last;\nint end(void) { return b(); }\n'
    )
    return tmp_path


def found(tool, folder: Path) -> list[str]:
    order = tool.read(ORDER)
    sources = ["first.c", "a.c", "b.c", "last.c"]
    return (
        tool.wrong_names(order, folder)
        or tool.wrong_includes(order, folder)
        or tool.wrong_symbols(order, tool.compiled(folder, sources))
    )


def test_files_that_include_only_earlier_ones_are_in_order(tool, folder):
    assert found(tool, folder) == []


def test_an_include_of_a_later_header_is_found(tool, folder):
    (folder / "first.h").write_text('#include "pair.h"\nint first(void);\n')
    assert found(tool, folder) == ["first.h includes pair.h, which comes after it"]


def test_a_c_file_without_its_own_header_is_found(tool, folder):
    (folder / "b.c").write_text("int a(void);\nint b(void);\nint b(void) { return a(); }\n")
    assert found(tool, folder) == ["b.c does not include pair.h"]


@pytest.mark.parametrize(
    ("declaration", "use", "wrong"),
    [
        ("int b(void);", "b()", "a.c needs b of b.c, which comes after it"),
        ("extern int last;", "last", "a.c needs last of last.c, which comes after it"),
    ],
)
def test_a_call_into_a_later_file_is_found_without_an_include(
    tool, folder, declaration, use, wrong
):
    body = f"int a(void) {{ return first() + {use}; }}"
    (folder / "a.c").write_text(f'#include "pair.h"\n{declaration}\n{body}\n')
    assert found(tool, folder) == [wrong]


def test_a_file_without_a_place_is_found(tool, folder):
    (folder / "new.c").write_text("")
    assert found(tool, folder) == ["new.c: it is missing in csrc/order.txt"]


def test_a_place_without_a_file_is_found(tool, folder):
    (folder / "a.c").unlink()
    order = tool.read(ORDER + "nothing\n")
    assert tool.wrong_names(order, folder) == [
        "csrc/order.txt: there is no a.c",
        "csrc/order.txt: there is no nothing.c",
    ]


@pytest.mark.parametrize("line", ["first", "other (a)", "two (words", "(a b)"])
def test_an_invalid_or_repeated_line_is_refused(tool, line):
    with pytest.raises(ValueError, match=r"^order\.txt: "):
        tool.read(ORDER + line + "\n")
