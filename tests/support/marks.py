"""Marks of tests that some Pythons cannot run."""

from __future__ import annotations

import sys

import pytest

PYPY = sys.implementation.name == "pypy"
#: Marks tests in which --timeout-request ends a request.
INTERRUPTS = pytest.mark.skipif(PYPY, reason="PyPy cannot interrupt a thread: it logs its stack")
