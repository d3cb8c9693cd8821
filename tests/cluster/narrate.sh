# Shared by the demonstrations: chapters, commands as a person would type them, and the cleanup at the end. Sourced after
# settings.sh, by a script whose cluster is in $dir and whose tree is $root; it may set $next, the last words.
export KUBECONFIG=$dir/kubeconfig PATH=$root/deviceplugin/ctl:$dir/bin:$PATH
unset -f kubectl

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  title=$'\e[1;34m' command=$'\e[32m' rate=$'\e[1;33m' dim=$'\e[2m' plain=$'\e[0m'
else
  title='' command='' rate='' dim='' plain=''
fi
chapter() { printf '\n%s== %s%s %s(%d s)%s\n' "$title" "$*" "$plain" "$dim" "$SECONDS" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
typed() {
  local word line=
  for word in "$@"; do if [[ $word == *[[:space:]\\]* ]]; then line+=" '$word'"; else line+=" $word"; fi; done
  printf '%s$%s%s\n' "$command" "$line" "$plain"
}
# show COMMAND...: prints a command as a person would type it, and its output. Files are those beside this script and those of
# the tree.
show() {
  local words=("$@") word
  typed "$@"
  for word in "${!words[@]}"; do
    case ${words[word]} in
      demo/*) words[word]=$here/${words[word]} ;;
      manifests | manifests/*) words[word]=$root/${words[word]} ;;
    esac
  done
  "${words[@]}"
}
# follow SECONDS COMMAND...: shows a command that would not end by itself for that long, its numbers in colour.
follow() {
  typed "${@:2}"
  { timeout "$1" "${@:2}" || [ $? = 124 ]; } | sed -u -E "s/[0-9.]+ (million )?frames\/s/$rate&$plain/"
}

cleaned=
next=
also_clean() { :; }   # resources of a demonstration besides the cluster
clean() {
  [ -z "$cleaned" ] || return 0
  cleaned=1
  chapter "Taking everything away again"
  also_clean
  "$here/down.sh" "$dir"
  note "No process, link, namespace, cgroup or mount of the cluster is left."
  [ -z "$next" ] || printf '\n%s\n' "$next"
}
failed() {
  note "The demo failed in: $BASH_COMMAND" >&2
  kubectl get pods -A -o wide >&2 || true
  kubectl get events -A --sort-by=.lastTimestamp 2> /dev/null | tail -n 12 >&2 || true
  kubectl -n vdpa-system logs -l app.kubernetes.io/name=vdpa-datapath -c vdpa-datapath --tail=20 --prefix >&2 || true
  kubectl -n vdpa-system logs -l app.kubernetes.io/name=vdpa-device-plugin --tail=20 --prefix >&2 || true
}
trap failed ERR
trap clean EXIT
trap 'exit 130' INT TERM
