#!/bin/bash
# Copies programs and the parts of Debian that they need at run time into a directory: shared libraries, DPDK drivers,
# busybox as the shell, licences, and the package list that image scanners read. Used by `./run image` and the Containerfile.
# Usage: rootfs.sh DIR PROGRAM[=PATH_IN_IMAGE]... [-- [@]DPDK_DRIVER...]
set -euo pipefail
umask 022   # the daemons' users read these files, whoever builds the image

root=$1
shift
libraries=/usr/lib/$(gcc -print-multiarch 2> /dev/null || dpkg-architecture -qDEB_HOST_MULTIARCH)
mkdir -p "$root"/{usr/bin,usr/lib,usr/lib64,etc,tmp,run,var/lib/dpkg/status.d}
chmod 1777 "$root/tmp"
for link in bin lib lib64; do ln -sfn "usr/$link" "$root/$link"; done    # Debian's merged /usr
ln -sfn /run "$root/var/run"
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' > "$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"
grep -E '^(PRETTY_NAME|NAME|VERSION|VERSION_ID|VERSION_CODENAME|ID)=' /etc/os-release > "$root/etc/os-release"

copied=()
# copy FILE: copies the file to its real path, and makes the requested name a link to it, so that EAL never finds a library
# under two inodes. EAL loads everything in the directory of DPDK's drivers: drivers requested by another name stay out of it.
copy() {
  local name=${1/#\/lib/\/usr\/lib} file place
  file=$(readlink -f "$1")
  [ -e "$root$name" ] && return
  place=$file
  [[ $file != */dpdk/pmds-* || $name = */dpdk/pmds-* || -e $root$file ]] || place=$name
  install -D "$file" "$root$place"
  [ "$name" = "$place" ] || { mkdir -p "$root${name%/*}"; ln -sfn "$place" "$root$name"; }
  copied+=("$file")
}

programs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  target=$root${1#*=}
  [[ $1 == *=* ]] || target=$root/usr/bin/$(basename "$1")
  install -D "${1%%=*}" "$target"
  # Without the build ID, a hash that also covers the paths in the debugging information: programs of any folder are the same.
  strip --remove-section=.note.gnu.build-id "$target"
  programs+=("$target")
  shift
done
[ $# -eq 0 ] || shift
# A driver named with @ is copied outside that directory: EAL loads it only when a program names it.
for driver in "$@"; do
  case $driver in
    @*) copy "$(echo "$libraries/librte_${driver#@}".so.[0-9][0-9])" ;;
    *) copy "$(echo "$libraries"/dpdk/pmds-*/"librte_$driver.so")" ;;
  esac
done

# The libraries that the programs and drivers are linked with.
mapfile -t needed < <({ for f in "${programs[@]}" "${copied[@]}"; do ldd "$f" 2> /dev/null || true; done; } |
  sed -nE 's/.*(=> |^\t)(\/[^ ]+) \(0x.*/\2/p' | sort -u)
for file in "${needed[@]}"; do copy "$file"; done

copy /usr/bin/busybox
for applet in sh cat cp env grep id ip kill ls mkdir mv ping ps rm sed sleep tail timeout touch tr; do ln -sfn busybox "$root/usr/bin/$applet"; done

# The packages that these files belong to.
for package in $(printf '%s\n' "${copied[@]}" "${copied[@]/#\/usr\/lib/\/lib}" /bin/busybox |
    xargs dpkg -S 2> /dev/null | sed 's/: .*//; s/:.*//' | sort -u); do
  dpkg-query -s "$package" > "$root/var/lib/dpkg/status.d/$package"
  install -D -m 644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done
