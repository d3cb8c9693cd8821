#!/bin/bash
# Unpacks Debian's newest backported Go into DIR, without installing it. Usage: go.sh DIR. Go itself downloads the exact
# toolchain that a module requires, as a Go module.
set -euo pipefail

mkdir -p "$1" && cd "$1"
mirror=$(sed -nE 's/^deb (\[[^]]*\] )?(https?:[^ ]+).*/\2/p; s/^URIs: *([^ ]+).*/\1/p' \
  /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -n 1 || true)
[ -n "$mirror" ] || { echo "no Debian mirror in apt's sources" >&2; exit 1; }

apt_root=$PWD/apt
mkdir -p "$apt_root"/{lists/partial,cache/archives/partial}
: > "$apt_root/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" > "$apt_root/sources.list"
options=(-o Dir::State::lists="$apt_root/lists" -o Dir::State::status="$apt_root/status" -o Dir::Cache="$apt_root/cache"
  -o Dir::Etc::sourcelist="$apt_root/sources.list" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0)
apt-get "${options[@]}" update
(cd "$apt_root/cache/archives" && apt-get "${options[@]}" download golang-1.23-go golang-1.23-src)
for package in "$apt_root"/cache/archives/golang-*.deb; do dpkg -x "$package" .; done
rm -rf "$apt_root"
usr/lib/go-1.23/bin/go version
