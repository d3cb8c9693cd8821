// The plugin's socket files: its own, and abandoned ones.
#include "deviceplugin/kubelet/plugin_socket.h"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace vdpa::plugin;

TEST_CASE("a socket's name has eight digits, and all of a resource have one length") {
  CHECK(pluginSocketName("vdpa.io/nic", 0xa1b2c3d) == "vdpa.io-nic-0a1b2c3d.sock");
  CHECK(pluginSocketName("vdpa.io/nic", ~0u) == "vdpa.io-nic-ffffffff.sock");
}

TEST_CASE("no two names of a resource are alike") {
  const TemporaryDirectory directory;
  std::set<std::string> names;
  for (int i = 0; i < 100; ++i) names.insert(newPluginSocketName(directory.path(), "vdpa.io/nic"));
  CHECK(names.size() == 100);
}

TEST_CASE("what a killed plugin left of the resources is removed, and nothing else") {
  const TemporaryDirectory directory;
  const auto path = [&](const std::string& name) { return directory.path() + "/" + name; };
  const auto listen = [&](const std::string& name) { return listenUnix(path(name), 0600); };
  const char* left[] = {"vdpa.io-nic.sock", "vdpa.io-nic-0123abcd.sock",
                        "vdpa.io-nic-89abcdef.sock", "vdpa.io-lan-00000000.sock"};
  const char* others[] = {"vdpa.io-nic-0123abc.sock",
                          "vdpa.io-nic-0123ABCD.sock",
                          "vdpa.io-nic-fast-0123abcd.sock",
                          "vdpa.io-nic-0123abcde.sock",
                          "vdpa.io-nic_0123abcd.sock",
                          "example.com-nic-0123abcd.sock",
                          "kubelet.sock"};
  for (const char* name : left) listen(name);  // and exits at once
  for (const char* name : others) listen(name);
  const UniqueFd living = listen("vdpa.io-nic-76543210.sock");
  std::ofstream(path("vdpa.io-nic-11111111.sock")) << "a file";

  removeLeftoverSockets(directory.path(), {"vdpa.io/nic", "vdpa.io/lan"});

  for (const char* name : left) CHECK_FALSE(std::filesystem::exists(path(name)));
  for (const char* name : others) CHECK(std::filesystem::exists(path(name)));
  CHECK(std::filesystem::exists(path("vdpa.io-nic-76543210.sock")));
  CHECK(std::filesystem::exists(path("vdpa.io-nic-11111111.sock")));
}
