"""Prints what is missing on this machine to build picowsgi, and how to install it.

Runs on any Python, even 2.7, so that users of an old one see the message. Never installs anything.
"""
# ruff: noqa: UP031, PTH110, PTH118

import os
import sys
import sysconfig


def missing():
    """Return a line for each thing that is missing."""
    python, version = sys.executable, "%d.%d" % sys.version_info[:2]
    if sys.version_info < (3, 10):  # noqa: UP036
        return [
            "Python 3.10 or newer is needed, but %s is %s. "
            "Choose another one: make PYTHON=/path/to/python3.11" % (python, version)
        ]
    from importlib.util import find_spec
    from shutil import which

    lines = []
    if not find_spec("venv") or not find_spec("ensurepip"):
        lines.append("%s has no venv: on Debian, apt-get install python%s-venv" % (python, version))
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        lines.append(
            "%s has no Python.h: on Debian, apt-get install python%s-dev" % (python, version)
        )
    compiler = os.environ.get("CC", "cc").split()[0]
    if not which(compiler):
        lines.append("there is no C compiler (%s): on Debian, apt-get install gcc" % compiler)
    return lines


if __name__ == "__main__":
    for line in missing():
        sys.stderr.write("error: %s\n" % line)
    sys.exit(1 if missing() else 0)
