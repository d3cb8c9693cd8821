#!/bin/bash
# Builds the programs of the previous release, whose version and commit are in previous-release, into DIR/VERSION, with the same
# paths as in a build folder: with VDPA_BUILD=DIR/VERSION the tests' harness starts them. Usage: build.sh DIR. Takes five
# minutes on two cores; a stamp of the commit decides whether an existing build is up to date.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repository=$here/../..
read -r version commit < "$here/previous-release"
dir=$(mkdir -p "$1/$version" && cd "$1/$version" && pwd)
[ "$(cat "$dir/.stamp" 2>/dev/null)" != "$commit" ] || exit 0

git -C "$repository" cat-file -e "$commit^{commit}" 2>/dev/null || {
  echo "this repository has no commit $commit, which is release $version: in a shallow clone," \
       "\`git fetch --unshallow\` brings it" >&2
  exit 1
}

programs=(cni/vdpa deviceplugin/vdpa-device-plugin deviceplugin/ctl/vdpactl
  deviceplugin/datapath/{vdpa-datapath,worker/vdpa-worker,switch/vdpa-switch,pmd/vdpa-pmd})
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
mkdir "$build/source"
git -C "$repository" archive "$commit" | tar -x -C "$build/source"
# Relative paths, so that ccache finds objects that another tree compiled.
export CCACHE_BASEDIR=$build/source CCACHE_NOHASHDIR=1
CXX="ccache g++" meson setup "$build/source/build/gcc" "$build/source"
ninja -C "$build/source/build/gcc" "${programs[@]}"

for program in "${programs[@]}"; do
  install -D "$build/source/build/gcc/$program" "$dir/$program"
done
told=$("$dir/deviceplugin/ctl/vdpactl" --version)
[[ $told == *"$version"* ]] || { echo "commit $commit makes '$told', not version $version: see $here/previous-release" >&2; exit 1; }
echo "$commit" > "$dir/.stamp"
