"""Builds the C core. All other facts about the package are in pyproject.toml.

Never lists a C file: tools/build_core.py finds them, and tools/flags.py has their compiler flags.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext

PROJECT = Path(__file__).resolve().parent
sys.path.insert(0, str(PROJECT / "tools"))

import flags  # noqa: E402
import vendor  # noqa: E402


class BuildCore(build_ext):
    """Compiles each file with its own flags, and several files at a time."""

    def build_extensions(self) -> None:
        compile_all = self.compiler.compile

        def compile_each(
            sources: list[str], *, extra_postargs: list[str] | None = None, **options: Any
        ) -> list[str]:
            def compile_one(source: str) -> list[str]:
                its_flags = [*(extra_postargs or []), *flags.compile_flags(source)]
                objects: list[str] = compile_all([source], extra_postargs=its_flags, **options)
                return objects

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [built for objects in pool.map(compile_one, sources) for built in objects]

        self.compiler.compile = compile_each
        # Some builds of Python add their own folder as an rpath, which the core does not need.
        self.compiler.linker_so = [
            word for word in self.compiler.linker_so if not word.startswith("-Wl,-rpath")
        ]
        for extension in self.extensions:
            extension.extra_link_args += flags.link_flags()
        super().build_extensions()


try:
    vendor.provide()
except vendor.VendorError as error:
    sys.exit(f"\nerror: {error}\n")

stable_abi = sys.implementation.name == "cpython" and not sysconfig.get_config_var(
    "Py_GIL_DISABLED"
)
setup(
    cffi_modules=["tools/build_core.py:ffibuilder"],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if stable_abi else {},
)
