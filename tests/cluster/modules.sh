# Compiles programs from Go modules; sourced by scripts that set 'dir', the folder for everything. Modules and compiled packages
# are kept in one place for all of them.

# Debian's Go does not download a newer toolchain by default.
export GOTOOLCHAIN=auto
export GOMODCACHE=${go_cache:-$dir/go}/mod GOCACHE=${go_cache:-$dir/go}/cache GOFLAGS=-modcacherw

# module FOLDER VERSIONED_MODULE...: enters a throw-away module that requires the given ones.
module() {
  mkdir -p "$dir/src/$1" && cd "$dir/src/$1"
  printf 'module testcluster/%s\ngo 1.24.0\n' "$1" > go.mod
  shift
  local required; for required in "$@"; do echo "require ${required/@/ }" >> go.mod; done
}

# import_commands PACKAGE...: makes 'go mod tidy' keep what the commands need.
import_commands() {
  { printf '//go:build tools\n\npackage tools\n\nimport (\n'; printf '\t_ "%s"\n' "$@"; echo ')'; } > tools.go
  go mod tidy > tidy.log 2>&1 || { cat tidy.log >&2; return 1; }
}
