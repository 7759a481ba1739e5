"""tools/python-t.sh, with stand-ins for the programs of apt and a source that builds at once."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "python-t.sh"

APT_GET = """#!/bin/sh
echo "$*" >>"$HERE/calls"
case "$*" in
indextargets*) printf '%s\\n' 'Other|Debian Ports|http://other/' "$MIRROR" ;;
*" source --download-only python3.14/$SUITE") cp "$HERE"/python3.14_* . ;;
*" source "*) echo '404 Not Found'; exit 100 ;;
esac
"""
APT_HELPER = """#!/bin/sh
echo "apt-helper $*" >>"$HERE/calls"
[ "$KEPT" ] && cp "$HERE"/python3.14_* "$3"
"""
CONFIGURE = r"""#!/bin/sh
for word; do case $word in --prefix=*) prefix=${word#*=} ;; --disable-gil) gil=0 ;; esac; done
cat >Makefile <<END
python = $prefix/bin/python3.14t
all:

install:
	mkdir -p $prefix/bin
	printf '%s\\n' '#!/bin/sh' 'exit ${gil-1}' >\$(python)
	chmod +x \$(python)
END
"""


@pytest.fixture
def run(tmp_path):
    """`run(suite="sid")` runs the tool when that suite, or with `kept` the pool, has the source."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {
        "apt-get": APT_GET,
        "apt-helper": APT_HELPER,
        "dpkg-query": "#!/bin/sh\necho install ok installed\n",
        "configure": CONFIGURE,
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with tarfile.open(tmp_path / "python3.14_3.14.1.orig.tar.xz", "w:xz") as archive:
        archive.add(programs / "configure", "Python-3.14.1/configure")

    def start(suite="sid", mirror="Debian|Debian|http://mirror/debian/", kept=""):
        environ = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HERE": str(tmp_path),
            "SUITE": suite,
            "MIRROR": mirror,
            "KEPT": kept,
            "PYTHON_T_CACHE": str(tmp_path / "cache"),
        }
        return subprocess.run([TOOL], env=environ, capture_output=True, text=True, check=False)

    return start


@pytest.mark.parametrize("suite", ["sid", "testing"])
def test_python_is_built_once_from_the_first_suite_that_has_it(run, tmp_path, suite):
    python = str(tmp_path / "cache/python3.14-t/bin/python3.14t")
    first = run(suite)
    assert (first.returncode, first.stdout) == (0, f"{python}\n"), first.stderr
    calls = (tmp_path / "calls").read_text()
    assert f"source --download-only python3.14/{suite}\n" in calls
    again = run(suite)
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{python}\n", "")
    assert (tmp_path / "calls").read_text() == calls, "expected no second download"


def test_an_older_release_is_checked_by_its_digest_when_no_suite_has_python(run, tmp_path):
    done = run("none", kept="yes")
    assert done.returncode == 0, done.stderr
    [call] = [
        call for call in (tmp_path / "calls").read_text().splitlines() if "apt-helper" in call
    ]
    assert "download-file http://mirror/debian/pool/main/p/python3.14/python3.14_3.14." in call
    assert re.search(r" SHA256:[0-9a-f]{64}$", call)


def test_the_package_lists_of_the_system_do_not_change(run, tmp_path):
    assert run().returncode == 0
    for call in (tmp_path / "calls").read_text().splitlines():
        if not call.startswith("indextargets"):
            assert f"Dir::State::lists={tmp_path}/cache/" in call, call
            assert f"Dir::Etc::sourcelist={tmp_path}/cache/" in call, call


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"suite": "none"}, "error: the mirror has no python3.14"),
        ({"mirror": ""}, "error: apt is set up with no mirror of Debian"),
    ],
)
def test_the_script_says_what_it_cannot_do(run, options, said):
    done = run(**options)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
