// The parameters of a CNI call: the environment, checked against the specification's table of
// variables per command.
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
      args;                       // CNI_ARGS, of ADD and CHECK; the last of a repeated key counts
  std::vector<std::string> path;  // CNI_PATH, without repetitions
  // VDPA_CNI_ROOTS, a list like CNI_PATH: directories besides /run/vdpa below which a
  // datapathSocket may be. A network's author can't set it.
  std::vector<std::string> socketRoots;
};

// `get` returns a variable's value, or a null pointer. Throws Error (invalidEnvironment) naming
// everything that is missing or malformed.
Environment readEnvironment(const std::function<const char*(const char*)>& get);

const char* commandName(Command command);

}  // namespace vdpa::cni
