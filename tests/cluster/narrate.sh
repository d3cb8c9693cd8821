# Shared by the demonstrations: chapters, commands as a person would type them, and the cleanup at the end. Sourced after
# settings.sh, by a script whose cluster is in $dir.
export KUBECONFIG=$dir/kubeconfig PATH=$dir/bin:$PATH
unset -f kubectl

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
chapter() { printf '\n%s== %s (%d s)%s\n' "$bold" "$*" "$SECONDS" "$plain"; }
note() { printf '%s\n' "$*"; }
# show COMMAND...: prints a command as a person would type it, and its output.
show() {
  local word line=
  for word in "$@"; do if [[ $word == *[[:space:]\\]* ]]; then line+=" '$word'"; else line+=" $word"; fi; done
  printf '%s$%s%s\n' "$dim" "$line" "$plain"
  "$@"
}

cleaned=
also_clean() { :; }   # resources of a demonstration besides the cluster
clean() {
  [ -z "$cleaned" ] || return 0
  cleaned=1
  chapter "Taking everything away again"
  also_clean
  "$here/down.sh" "$dir"
  note "No process, link, namespace, cgroup or mount of the cluster is left."
}
failed() {
  note "" "The demo failed in: $BASH_COMMAND" >&2
  kubectl get pods -A -o wide >&2 || true
  kubectl get events -A --sort-by=.lastTimestamp 2> /dev/null | tail -n 12 >&2 || true
  kubectl -n vdpa-system logs -l app.kubernetes.io/name=vdpa-datapath -c vdpa-datapath --tail=20 --prefix >&2 || true
  kubectl -n vdpa-system logs -l app.kubernetes.io/name=vdpa-device-plugin --tail=20 --prefix >&2 || true
}
trap failed ERR
trap clean EXIT
trap 'exit 130' INT TERM
