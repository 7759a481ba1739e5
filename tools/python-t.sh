#!/usr/bin/env bash
# Builds a CPython without the GIL (PEP 703) from Debian's source package, and prints its path. If
# that Python exists, the script only prints the path.
#
#     PYTHON_T_SOURCE=python3.14    the source package
#     PYTHON_T_CACHE=DIR            the folder for the interpreter; by default ~/.cache/picowsgi
#
# apt downloads the package from its configured mirror, from sid or the newest suite that has it. It
# uses separate package lists, so the system does not change. If the lists name a version that the
# mirror does not have, it downloads an older release. If you are root, the script also installs the
# libraries for the build.
set -euo pipefail

source=${PYTHON_T_SOURCE:-python3.14}
cache=${PYTHON_T_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/picowsgi}
version=${source#python}
suites=(sid testing stable)
kept=python3.14_3.14.7.orig.tar.xz
kept_digest=3b48dac8fb59f62eaa67ac83c1eb12bda1b7a08406dd286e252c11a66be27f81
prefix=$cache/$source-t
python=$prefix/bin/python${version}t

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 1
}

if [[ -x $python ]]; then
    echo "$python"
    exit
fi
command -v apt-get >/dev/null || fail "apt-get is needed to fetch the source of $source; or have" \
    "another Python without the GIL: make test-freethreaded FREETHREADED=/path/to/python${version}t"

# Print the first Debian mirror in the lists of apt, or nothing.
find_mirror() {
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
        awk -F '|' '$1 == "Debian" && $2 == "Debian" && !found { print $3; found = 1 }'
}
mirror=$(find_mirror)
if [[ -z $mirror ]] && ((EUID == 0)); then
    apt-get -qq update >&2
    mirror=$(find_mirror)
fi
[[ -n $mirror ]] || fail "apt is set up with no mirror of Debian, where the source of $source is"

if ((EUID == 0)); then
    wanted=(gcc make xz-utils libssl-dev zlib1g-dev libffi-dev libbz2-dev liblzma-dev libsqlite3-dev)
    missing=()
    for package in "${wanted[@]}"; do
        dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
            missing+=("$package")
    done
    if ((${#missing[@]})); then
        say "apt-get install ${missing[*]}"
        apt-get -qq update >&2
        apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
    fi
fi

work=$cache/$source-work
log=$work/log
rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/source" "$work/build"
options=(-qq -o "Dir::Etc::sourcelist=$work/suites.sources" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
printf '%s\n' 'Types: deb-src' "URIs: $mirror" "Suites: ${suites[*]}" 'Components: main' \
    'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >"$work/suites.sources"

cd "$work"
apt-get "${options[@]}" update >>"$log" 2>&1 || fail "the lists of sid cannot be fetched: see $log"
for suite in "${suites[@]}"; do
    apt-get "${options[@]}" source --download-only "$source/$suite" >>"$log" 2>&1 && break
done
shopt -s nullglob
archives=("$work/${source}_"*.orig.tar.*z)
if ((!${#archives[@]})) && [[ $kept == "${source}_"* ]]; then
    PATH=$PATH:/usr/lib/apt apt-helper download-file "${mirror%/}/pool/main/p/$source/$kept" \
        "$work/$kept" "SHA256:$kept_digest" >>"$log" 2>&1 || rm -f "$work/$kept"
fi
archives=("$work/${source}_"*.orig.tar.*z)
((${#archives[@]})) ||
    fail "the mirror has no $source: its lists may be older than its packages; see $log"

say "building $source without the GIL: some minutes, see $log"
tar -xf "${archives[0]}" -C source --strip-components=1
cd build
{
    ../source/configure --quiet --disable-gil --prefix="$prefix" &&
        nice make -j"${JOBS:-2}" && make install
} >>"$log" 2>&1 || fail "the build has failed: see $log"
"$python" -c 'import sys; sys.exit(sys._is_gil_enabled())' || fail "$python has a GIL"
rm -rf "$work"
echo "$python"
