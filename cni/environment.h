// A CNI call's parameters: the environment, checked against the specification's table of variable
// by command.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace vdpa::cni {

enum class Command { add, del, check, gc, status, version };

struct Environment {
  Command command = Command::version;
  std::string containerId;
  std::string netns;
  std::string interface;
  std::map<std::string, std::string>
      args;                       // CNI_ARGS, of ADD and CHECK; of a repeated key the last counts
  std::vector<std::string> path;  // CNI_PATH, without repetitions
  // VDPA_CNI_ROOTS, a list as CNI_PATH is: directories below which a datapathSocket may be, beside
  // /run/vdpa. A network's author can't set it.
  std::vector<std::string> socketRoots;
};

// `get` returns a variable's value, or a null pointer. Throws Error (invalidEnvironment) naming
// everything that is missing or malformed.
Environment readEnvironment(const std::function<const char*(const char*)>& get);

const char* commandName(Command command);

}  // namespace vdpa::cni
