// Compares the tables of drivers in deviceplugin/backends.md with the table that the programs use.
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "common/atomic_file.h"
#include "common/vdpa_drivers.h"

using namespace vdpa;

namespace {

// The rows of the table below `heading`, without its header.
std::vector<std::string> rowsBelow(const std::string& heading) {
  const char* file = std::getenv("BACKENDS");  // set by the build; else that of the working directory
  std::istringstream document(readFile(file ? file : "deviceplugin/backends.md"));
  std::vector<std::string> rows;
  bool below = false;
  for (std::string line; std::getline(document, line);) {
    if (line == heading) below = true;
    if (below && line.starts_with("| `")) rows.push_back(line);
    if (below && !rows.empty() && !line.starts_with('|')) break;
  }
  return rows;
}

std::string functionsOf(std::span<const PciId> ids) {
  std::string text;
  for (const auto& id : ids) text += (text.empty() ? "" : ", ") + describe(id);
  return text.empty() ? "-" : text;
}

std::string yesNo(const char* whyNot) {
  return *whyNot == '\0' ? "yes" : "no";
}

void compare(const std::vector<std::string>& rows, const std::vector<std::string>& expected) {
  REQUIRE(rows.size() == expected.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK_THAT(rows[i], Catch::StartsWith(expected[i]));
    const std::string evidence = rows[i].substr(std::min(rows[i].size(), expected[i].size()));
    CHECK(evidence.size() > 4);  // the evidence of a test
  }
}

}  // namespace

TEST_CASE("The document has the kernel's drivers as the programs know them") {
  std::vector<std::string> expected;
  for (const auto& driver : kernelVdpaDrivers())
    expected.push_back(fmt::format(
        "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} | ", driver.name,
        functionsOf(driver.functions), driver.hardware, addAttributes(driver),
        driver.askForAll ? "one pair, some features" : "all", driver.macLater ? "mac" : "-",
        driver.suspend, yesNo(driver.notProvisioned), yesNo(driver.notOverSocket)));
  compare(rowsBelow("## The kernel's vDPA drivers"), expected);
}

TEST_CASE("The document has DPDK's drivers as the programs know them") {
  std::vector<std::string> expected;
  for (const auto& driver : dpdkVdpaDrivers()) {
    std::string functions = functionsOf(driver.functions);
    if (!driver.pfs.empty()) functions += "; PFs: " + functionsOf(driver.pfs);
    expected.push_back(fmt::format(
        "| `{}` | {} | {} | {} | {} | {} | ", driver.name, functions, driver.hardware,
        driver.kernelDriver, *driver.devargs == '\0' ? "-" : driver.devargs, driver.dirtyPages));
  }
  compare(rowsBelow("## DPDK's vDPA drivers"), expected);
}
