"""The parser for TOML: Python's own, or for Python 3.10 the library that it came from.

Imported only where there is a file to be read.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from tomllib import TOMLDecodeError, loads
else:
    from tomli import TOMLDecodeError, loads

__all__ = ["TOMLDecodeError", "loads"]
