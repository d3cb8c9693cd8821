#!/bin/bash
# Builds the parts of the test machine, a QEMU guest with SR-IOV NICs and the kernel's vDPA drivers, from Debian packages:
#   DIR/qemu           QEMU 11, the first with virtio VFs, from trixie-backports, unpacked without installing it
#   DIR/kernel         Linux 6.12 and its modules; the vDPA modules that Debian leaves out, built from its source; and the
#                      headers to build testnic
#   DIR/testnic.ko     the module of testnic/, rebuilt when it has changed
#   DIR/initramfs.gz   mounts the host's file system and starts agent.py
# Usage: setup.sh [DIR]; by default ~/.cache/vdpa/vm. Takes three minutes the first time; finished parts are kept, and an
# interrupted part is made again. Nothing outside DIR is changed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/vdpa/vm}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
exec 9> "$dir/lock"
flock 9

say() { echo "vm setup: $* [$SECONDS s]"; }
fail() { echo "vm setup: $*" >&2; exit 1; }
work=$dir/work     # on the same file system, so that a finished part appears atomically
rm -rf "$work"
trap 'rm -rf "$work"' EXIT

# apt_options NAME [SOURCES]: fills 'apt' with options for an apt that shares only the sources with the system's.
apt_options() {
  local root=$work/apt-$1
  mkdir -p "$root"/{lists/partial,cache/archives/partial,downloads}
  : > "$root/status"
  apt=(-q -o Dir::State::lists="$root/lists" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache"
    -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3
    -o APT::Install-Recommends=0)
  archives=$root/cache/archives
  if [ -n "${2:-}" ]; then
    echo "$2" > "$root/sources.list"
    apt+=(-o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=- -o Dir::Etc::preferences=-
      -o Dir::Etc::preferencesparts=-)
  fi
  apt-get "${apt[@]}" update > "$root/log" 2>&1 || { cat "$root/log" >&2; fail "apt-get update failed"; }
}

# download COMMAND...: runs an apt-get that only downloads, in the archives' folder.
download() {
  (cd "$archives" && apt-get "${apt[@]}" "$@" > ../log 2>&1) || { cat "$archives/../log" >&2; fail "apt-get $* failed"; }
}

unpack() {
  local package
  mkdir -p "$1"
  for package in "$archives"/*.deb; do dpkg -x "$package" "$1"; rm "$package"; done
}

qemu() {
  local mirror suite sources=
  mirror=$(sed -nE 's/^deb (\[[^]]*\] )?(https?:[^ ]+).*/\2/p; s/^URIs: *([^ ]+).*/\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null | grep '/debian/*$' | head -n 1 || true)
  [ -n "$mirror" ] || fail "no Debian mirror in apt's sources"
  for suite in trixie trixie-backports; do
    sources+="deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"$'\n'
  done
  apt_options qemu "$sources"
  download install -y -d -t trixie-backports qemu-system-x86 seabios ipxe-qemu
  unpack "$work/qemu"
  mv "$work/qemu" "$dir/qemu"
}

kernel() {
  local version source headers root=$work/kernel
  apt_options kernel
  version=$(apt-cache "${apt[@]}" depends linux-headers-6.12-amd64 | sed -n 's/.*Depends: linux-headers-\(6\.12.*\)-amd64$/\1/p' | head -n 1)
  [ -n "$version" ] || fail "no linux-headers-6.12-amd64 in apt's sources: they need bookworm-security"
  source=$(apt-cache "${apt[@]}" policy "linux-headers-$version-amd64" | sed -n 's/.*Candidate: //p')
  download download "linux-image-$version-amd64" "linux-headers-$version-amd64" "linux-headers-$version-common" \
    "linux-kbuild-$version" "linux-source-6.12=$source"
  unpack "$root"
  say "building vdpa_sim and vp_vdpa for $version"

  # The headers refer to each other by absolute paths; without vmlinux beside them no BTF is made, which would need more tools.
  headers=$root/usr/src/linux-headers-$version-amd64
  sed -i "s|/usr/src/|../|" "$headers/Makefile"
  rm -f "$headers/vmlinux"
  tar -xJf "$root/usr/src/linux-source-6.12.tar.xz" -C "$work" --transform 's|^[^/]*/drivers|modules|' --wildcards \
    '*/drivers/vdpa/vdpa_sim/*' '*/drivers/vdpa/virtio_pci/*' '*/drivers/vhost/vringh.c'
  echo 'obj-m += vringh.o' > "$work/modules/vhost/Kbuild"
  echo 'obj-m += vhost/ vdpa/vdpa_sim/ vdpa/virtio_pci/' > "$work/modules/Kbuild"
  make -s -j"$(nproc)" -C "$headers" M="$work/modules" CONFIG_VHOST_RING=m CONFIG_VDPA_SIM=m CONFIG_VDPA_SIM_NET=m \
    CONFIG_VP_VDPA=m modules
  mkdir "$root/lib/modules/$version-amd64/updates"
  find "$work/modules" -name '*.ko' -exec cp {} "$root/lib/modules/$version-amd64/updates/" \;
  depmod -b "$root" "$version-amd64"
  mkdir "$root/vdpa_sim"
  mv "$work/modules/Module.symvers" "$work/modules/vdpa/vdpa_sim/vdpa_sim.h" "$root/vdpa_sim/"
  rm "$root/usr/src/linux-source-6.12.tar.xz"
  echo "$version-amd64" > "$root/version"
  rm -rf "$dir/kernel"
  mv "$root" "$dir/kernel"
}

testnic() {
  local stamp vdpa_sim=$dir/kernel/vdpa_sim
  stamp=$(cat "$dir/kernel/version" "$here"/testnic/{Kbuild,*.[ch]} | sha256sum)
  [ ! -f "$dir/testnic.ko" ] || [ "$(cat "$dir/testnic.stamp" 2> /dev/null)" != "$stamp" ] || return 0
  say "building testnic"
  mkdir "$work/testnic"
  cp "$here"/testnic/{Kbuild,*.[ch]} "$work/testnic/"
  make -s -j"$(nproc)" -C "$dir/kernel/usr/src/linux-headers-$(cat "$dir/kernel/version")" M="$work/testnic" \
    VDPA_SIM="$vdpa_sim" KBUILD_EXTRA_SYMBOLS="$vdpa_sim/Module.symvers" KCFLAGS=-Werror modules
  strip --strip-debug "$work/testnic/testnic.ko"
  mv "$work/testnic/testnic.ko" "$dir/testnic.ko"
  echo "$stamp" > "$dir/testnic.stamp"
}

initramfs() {
  local module file root=$work/initramfs modules=$dir/kernel/lib/modules
  mkdir -p "$root"/{bin,modules,proc,sys,dev,host,upper,newroot}
  cp "$(command -v busybox)" "$root/bin/busybox"
  for module in netfs 9pnet 9pnet_virtio 9p overlay; do
    file=$(find "$modules" -name "$module.ko*" | head -n 1)
    [ -n "$file" ] || fail "the kernel has no module $module"
    case $file in *.xz) xz -dc "$file" > "$root/modules/$module.ko" ;; *) cp "$file" "$root/modules/" ;; esac
  done
  install -m 755 "$here/init" "$root/init"
  (cd "$root" && find . -print0 | cpio --null --create --format=newc --quiet | gzip -1) > "$work/initramfs.gz"
  mv "$work/initramfs.gz" "$dir/initramfs.gz"
}

mkdir "$work"
[ -d "$dir/qemu" ] || { say "downloading QEMU"; qemu; }
[ -d "$dir/kernel/vdpa_sim" ] || { say "downloading Linux"; kernel; }
testnic
initramfs
say "ready in $dir, Linux $(cat "$dir/kernel/version")"
