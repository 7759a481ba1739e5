"""Describes `picowsgi._core` for cffi: csrc/api.h has the declarations, csrc/*.c are the sources.

Never compiles anything. setup.py names this file, and cffi runs it in the folder of the project.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

import flags

CSRC = Path("csrc")

ffibuilder = FFI()
ffibuilder.cdef((CSRC / "api.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "picowsgi._core",
    '#include <stdint.h>\n#include "api.h"\n',
    sources=[*sorted(map(str, CSRC.glob("*.c"))), *flags.emulated_sources()],
    depends=[*sorted(map(str, CSRC.rglob("*.[ch]"))), "setup.py", "tools/flags.py"],
    include_dirs=[str(CSRC)],
)
