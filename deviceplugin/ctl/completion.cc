#include "deviceplugin/ctl/completion.h"

#include <fmt/core.h>

#include <exception>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/command_line.h"
#include "deviceplugin/ctl/client.h"

namespace vdpa::ctl {
namespace {

// The first argument by which the scripts call this program.
constexpr std::string_view kComplete = "__complete";

constexpr const char* kBash = R"(# bash completion of vdpactl
_vdpactl() {
  local line=${COMP_LINE:0:COMP_POINT} words found word prefix='' break
  read -ra words <<< "$line"
  [[ $line != *[[:space:]] ]] || words+=('')
  COMPREPLY=()
  found=$("${words[0]}" __complete "${words[@]:1}" 2> /dev/null) || { compopt -o default; return; }
  # Readline replaces only what follows the last of these characters, which device IDs contain.
  word=${words[-1]}
  for break in : =; do
    [[ $COMP_WORDBREAKS != *$break* || $word != *$break* ]] || prefix=${word%"${word##*[:=]}"}
  done
  while IFS=$'\t' read -r word _; do
    [[ -z $word ]] || COMPREPLY+=("${word#"$prefix"}")
  done <<< "$found"
}
complete -F _vdpactl vdpactl
)";

constexpr const char* kZsh = R"(#compdef vdpactl
_vdpactl() {
  local found line
  local -a candidates
  found=$(${(Q)words[1]} __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2> /dev/null) || { _files; return }
  for line in "${(@f)found}"; do
    [[ -z $line ]] || candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done
  _describe -t words vdpactl candidates
}
if [[ $funcstack[1] == _vdpactl ]]; then _vdpactl "$@"; else compdef _vdpactl vdpactl; fi
)";

constexpr const char* kFish = R"(# fish completion of vdpactl
function __vdpactl_words
  set -l words (commandline -opc)
  $words[1] __complete $words[2..-1] (commandline -ct) 2> /dev/null
end
complete -c vdpactl -f -a '(__vdpactl_words)'
complete -c vdpactl -n 'not __vdpactl_words > /dev/null' -F
)";

}  // namespace

void printCompletion(Shell shell) {
  static const std::map<Shell, const char*> scripts{
      {Shell::bash, kBash}, {Shell::zsh, kZsh}, {Shell::fish, kFish}};
  fmt::print("{}", scripts.at(shell));
}

std::optional<std::vector<std::string>> wordsToComplete(int argc, char** argv) {
  if (argc < 2 || argv[1] != kComplete) return std::nullopt;
  return std::vector<std::string>(argv + 2, argv + argc);
}

int printWords(const Completion& completion) {
  for (const auto& word : completion.words) fmt::print("{}\t{}\n", word.text, word.help);
  return completion.file ? 1 : 0;
}

std::vector<std::string> deviceIds(const std::string& datapathSocket) {
  std::vector<std::string> ids;
  try {
    const auto list = DatapathClient(datapathSocket).list();
    for (const auto& device : list.devices()) ids.push_back(device.id());
  } catch (const std::exception&) {
    // A shell has no place for errors while a person types.
  }
  return ids;
}

}  // namespace vdpa::ctl
