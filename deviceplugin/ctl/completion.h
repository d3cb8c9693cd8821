// vdpactl completion: scripts that make a shell complete vdpactl's command lines. They only pass
// the words typed so far to vdpactl itself, which knows its sub-commands, options and devices.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/command_line.h"

namespace vdpa::ctl {

enum class Shell { bash, zsh, fish };

// Prints the script of a shell.
void printCompletion(Shell shell);

// The words to complete if such a script runs this program.
std::optional<std::vector<std::string>> wordsToComplete(int argc, char** argv);

// Prints what may follow, a line for each: the word, a tab and its help. Returns the exit status:
// 0, or 1 if the name of any file may follow.
int printWords(const Completion& completion);

// The IDs of the node's devices; none if vdpa-datapath can't be asked.
std::vector<std::string> deviceIds(const std::string& datapathSocket);

}  // namespace vdpa::ctl
