"""Prints the stub of the compiled core, as the built module has its functions and constants:

    python tools/stub.py >src/picowsgi/_core.pyi

Never reads csrc/api.h: what cffi has made of it counts. A test compares the stub with this.
"""

from __future__ import annotations

from typing import Any

from picowsgi._core import ffi, lib

_WIDTH = 100

_HEAD = """\
# Made by tools/stub.py of the compiled core; csrc/api.h says what each function does.
# A pointer to a struct has the struct's name, one to text is _Text. NULL is of every type.
from typing import Any

class _FFI:
    NULL: Any
    errno: int
    def new(self, kind: str, value: object = ...) -> Any: ...
    def buffer(self, pointer: Any, size: int = ...) -> Any: ...
    def unpack(self, pointer: Any, size: int) -> bytes: ...
    def string(self, pointer: Any) -> bytes: ...
    def gc(self, pointer: Any, destructor: Any, size: int = ...) -> Any: ...
    def addressof(self, pointer: Any, field: str) -> Any: ...
    def from_buffer(self, data: bytes) -> Any: ...
    def sizeof(self, kind: str) -> int: ...

class _Text: ...
"""


def stub() -> str:
    """Return the text of the stub."""
    names = sorted(dir(lib))
    functions = {
        name: ffi.typeof(getattr(lib, name))
        for name in names
        if not isinstance(getattr(lib, name), int)
    }
    parts = [_HEAD]
    typedefs, opaque, _ = ffi.list_types()
    parts += [f"class {name}: ...\n" if name in opaque else _struct(name) for name in typedefs]
    lines = ["class _Lib:"]
    lines += [f"    {name}: int" for name in names if name not in functions]
    lines += [_function(name, kind) for name, kind in functions.items()]
    parts.append("\n".join(lines) + "\n")
    parts.append("ffi: _FFI\nlib: _Lib\n")
    return "\n".join(parts)


def _struct(name: str) -> str:
    ffi.sizeof(name)  # cffi completes a struct only then, and has no fields before
    fields = [f"    {field}: {_type(facts.type)}" for field, facts in ffi.typeof(name).fields]
    return "\n".join([f"class {name}:", *fields, ""])


def _function(name: str, kind: Any) -> str:
    # cffi takes arguments by their place alone and does not keep their names.
    arguments = [f"_{number}: {_argument(type_)}" for number, type_ in enumerate(kind.args)]
    result = _type(kind.result)
    words = ["self", *arguments, "/"] if arguments else ["self"]
    line = f"    def {name}({', '.join(words)}) -> {result}: ..."
    if len(line) <= _WIDTH:
        return line
    return f"    def {name}(\n        {', '.join(words)}\n    ) -> {result}: ..."


def _argument(kind: Any) -> str:
    name = _type(kind)
    return f"bytes | {name}" if name == "_Text" else name


def _type(kind: Any) -> str:
    if kind.kind == "void":
        return "None"
    if kind.kind == "primitive":
        return "int"
    name = str(kind.item.cname).removeprefix("struct ")
    return "_Text" if name == "char" else name


if __name__ == "__main__":
    print(stub(), end="")
