// Repeats one scan of the node, as vdpa-device-plugin does it, and prints the times as a JSON array
// of milliseconds.
#include <CLI/CLI.hpp>

#include <chrono>
#include <iostream>
#include <ratio>
#include <string>

#include "common/json.h"
#include "common/netlink/vdpa_netlink.h"
#include "deviceplugin/discovery/take_snapshot.h"

int main(int argc, char** argv) {
  std::string sysfs = "/sys";
  int rounds = 1;
  CLI::App app("Times looks at the node.\n");
  app.add_option("--sysfs", sysfs, "where the kernel shows its devices");
  app.add_option("--rounds", rounds, "how many looks");
  CLI11_PARSE(app, argc, argv);

  vdpa::VdpaNetlink netlink;
  auto times = nlohmann::json::array();
  for (int i = 0; i < rounds; ++i) {
    const auto from = std::chrono::steady_clock::now();
    vdpa::plugin::takeSnapshot(sysfs, netlink);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - from;
    times.push_back(took.count());
  }
  std::cout << times.dump() << '\n';
}
