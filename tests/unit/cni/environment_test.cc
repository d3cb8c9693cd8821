// The table of required variables by command, and the variables' valid values.
#include "cni/environment.h"

#include <catch2/catch.hpp>

#include <map>
#include <string>
#include <vector>

#include "tests/unit/cni/errors.h"

using namespace vdpa::cni;
using Variables = std::map<std::string, std::string>;

namespace {

constexpr const char* kNetns = "/proc/self/ns/net";

Environment read(const Variables& variables) {
  return readEnvironment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

Variables full(const std::string& command) {
  return {{"CNI_COMMAND", command},
          {"CNI_CONTAINERID", "c0"},
          {"CNI_NETNS", kNetns},
          {"CNI_IFNAME", "net1"},
          {"CNI_PATH", "/opt/cni/bin"}};
}

Variables with(Variables variables, const std::string& name, const std::string& value) {
  variables[name] = value;
  return variables;
}

std::string refusalOf(const Variables& variables) {
  return errorOf([&] { read(variables); });
}

}  // namespace

TEST_CASE("directories of sockets are a list as CNI_PATH is") {
  CHECK(read(full("ADD")).socketRoots.empty());
  for (const char* command : {"ADD", "DEL", "CHECK", "GC", "STATUS"})
    CHECK(read(with(full(command), "VDPA_CNI_ROOTS", "/a::/b:/a")).socketRoots ==
          std::vector<std::string>{"/a", "/b"});
}

TEST_CASE("each command needs its variables and no others") {
  const auto [command, needed] = GENERATE(table<std::string, std::string>({
      {"ADD", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"},
      {"DEL", "CNI_CONTAINERID, CNI_IFNAME"},
      {"CHECK", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"},
      {"GC", "CNI_PATH"},
      {"STATUS", ""},
      {"VERSION", ""},
  }));
  CAPTURE(command);
  CHECK(refusalOf({{"CNI_COMMAND", command}}) ==
        (needed.empty() ? "no error" : "4: " + command + " needs " + needed));
  CHECK(commandName(read(full(command)).command) == command);
  for (const char* name : {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}) {
    const bool isNeeded = needed.find(name) != std::string::npos;
    CHECK(refusalOf(with(full(command), name, "")) ==
          (isNeeded ? "4: " + command + " needs " + name : "no error"));
  }
}

TEST_CASE("commands") {
  CHECK(refusalOf(Variables{}).find("4: CNI_COMMAND is not set") == 0);
  CHECK(refusalOf({{"CNI_COMMAND", "add"}}).find("4: CNI_COMMAND 'add'") == 0);
}

TEST_CASE("container IDs") {
  for (const char* good : {"c", "0", "a.b-c_d", "A9"})
    CHECK(read(with(full("ADD"), "CNI_CONTAINERID", good)).containerId == good);
  for (const char* bad : {".", "-a", "_a", "a/b", "a b", "a\n", "ä"})
    CHECK(refusalOf(with(full("DEL"), "CNI_CONTAINERID", bad)).find("4: CNI_CONTAINERID") == 0);
}

TEST_CASE("interface names") {
  for (const char* good : {"e", "net1", "fifteen-bytes-x", "...", "a.b@c"})
    CHECK(read(with(full("ADD"), "CNI_IFNAME", good)).interface == good);
  for (const char* bad : {".", "..", "a/b", "a:b", "a b", "a\tb", "a\n", "sixteen-bytes-xx"})
    CHECK(refusalOf(with(full("DEL"), "CNI_IFNAME", bad)).find("4: CNI_IFNAME") == 0);
}

TEST_CASE("network namespaces exist where they are needed") {
  for (const char* bad : {"netns", "/nonexistent/netns"}) {
    CHECK(refusalOf(with(full("ADD"), "CNI_NETNS", bad)).find("4: CNI_NETNS") == 0);
    CHECK(refusalOf(with(full("CHECK"), "CNI_NETNS", bad)).find("4: CNI_NETNS") == 0);
    CHECK(read(with(full("DEL"), "CNI_NETNS", bad)).netns == bad);
  }
}

TEST_CASE("arguments") {
  const auto arguments = [](const char* text) {
    return read(with(full("ADD"), "CNI_ARGS", text)).args;
  };
  CHECK(arguments("").empty());
  CHECK(arguments(";;").empty());
  CHECK(arguments("A=1;;B=;C=x=y") == Variables{{"A", "1"}, {"B", ""}, {"C", "x=y"}});
  CHECK(arguments("A=1;A=2;A=1") == Variables{{"A", "1"}});
  for (const char* bad : {"A", "=1", "A=1;B"})
    CHECK(refusalOf(with(full("ADD"), "CNI_ARGS", bad)).find("4: CNI_ARGS") == 0);
  CHECK(read(with(full("DEL"), "CNI_ARGS", "A")).args.empty());
}

TEST_CASE("the path without repetitions and empty parts") {
  CHECK(read(with(full("ADD"), "CNI_PATH", ":/b:/a:/b:")).path ==
        std::vector<std::string>{"/b", "/a"});
}
