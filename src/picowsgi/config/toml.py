"""The parser for TOML: Python's own, or in Python 3.10 the library `tomli`, from which it comes.

Imported only if there is a file to read.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:
    from tomli import TOMLDecodeError, loads

__all__ = ["TOMLDecodeError", "loads"]
