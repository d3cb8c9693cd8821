// The feature file of Node Feature Discovery. tests/system/test_node_features.py lets its own code
// read a plugin's.
#include "deviceplugin/node_features.h"

#include <catch2/catch.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/version.h"
#include "deviceplugin/resources/offer.h"

using namespace vdpa;
using namespace vdpa::plugin;

namespace {

const std::string kVersion = programVersion();
const std::string kHead = "# Written by vdpa-device-plugin " + kVersion +
                          ".\n"
                          "vdpa.io/version=" +
                          kVersion + "\n";

ResourceOffer offerOf(const std::string& name, BackendKind backend) {
  ResourceOffer offer;
  offer.resource.name = name;
  offer.devices.resize(1);
  offer.devices[0].backend = backend;
  return offer;
}

struct Directory {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / "vdpa-node-features-test";
  Directory() {
    std::filesystem::remove_all(path);
    std::filesystem::create_directory(path);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path))
      names.push_back(entry.path().filename().string());
    return names;
  }
};

}  // namespace

TEST_CASE("labels of a node with hardware and ports, and of one with nothing") {
  CHECK(featureLines({offerOf("nic", BackendKind::software), offerOf("vf", BackendKind::kernel)},
                     {{"vdpa.io/nic", true, 8, 6}, {"dev.vdpa.io/vf", true, 2, 1}},
                     false) == kHead +
                                   "vdpa.io/capable=true\n"
                                   "vdpa.io/backends=kernel.software\n"
                                   "vdpa.io/nic.devices=8\n"
                                   "dev.vdpa.io/vf.devices=2\n"
                                   "vdpa.io/unhealthy=3\n"
                                   "vdpa.io/drained=false\n");
  CHECK(featureLines({offerOf("nic", BackendKind::dpdk)}, {}, true) ==
        kHead +
            "vdpa.io/capable=true\n"
            "vdpa.io/backends=dpdk\n"
            "vdpa.io/unhealthy=0\n"
            "vdpa.io/drained=true\n");
  CHECK(featureLines({offerOf("nic", BackendKind::software)}, {}, false).find("capable=false") !=
        std::string::npos);
  CHECK(featureLines({}, {}, false) == kHead +
                                           "vdpa.io/capable=false\n"
                                           "vdpa.io/backends=none\n"
                                           "vdpa.io/unhealthy=0\n"
                                           "vdpa.io/drained=false\n");
}

TEST_CASE("a label whose name is too long for Kubernetes is left out") {
  const std::string fits(55, 'a');
  const auto linesOf = [](const std::string& name) {
    return featureLines({}, {{"vdpa.io/" + name, true, 1, 1}}, false);
  };
  CHECK(linesOf(fits).find(fits + ".devices=1") != std::string::npos);
  CHECK(linesOf(fits + "a").find("devices") == std::string::npos);
}

TEST_CASE("the file is replaced whole, and removed at the end") {
  const Directory directory;
  const std::string file = directory.path / "vdpa";
  {
    FeatureFile features(directory.path);
    features.write("a=1\n");
    CHECK(readFile(file) == "a=1\n");
    const auto before = std::filesystem::last_write_time(file);
    features.write("a=1\n");
    CHECK(std::filesystem::last_write_time(file) == before);
    features.write("a=2\n");
    CHECK(readFile(file) == "a=2\n");
    CHECK(directory.files() == std::vector<std::string>{"vdpa"});
  }
  CHECK(directory.files().empty());
}

TEST_CASE("a file that is not finished is hidden from its reader") {
  const Directory directory;
  std::filesystem::create_directory(directory.path / "vdpa");  // the rename fails
  FeatureFile features(directory.path);
  features.write("a=1\n");
  for (const auto& name : directory.files())
    if (name != "vdpa") CHECK(name.starts_with('.'));
  CHECK(directory.files().size() == 2);
  std::filesystem::remove(directory.path / "vdpa");
  features.write("a=1\n");
  CHECK(directory.files() == std::vector<std::string>{"vdpa"});
}

TEST_CASE("without its directory, the file is written once the directory is there") {
  const Directory directory;
  FeatureFile features(directory.path / "later");
  CHECK_FALSE(features.write("a=1\n"));
  std::filesystem::create_directory(directory.path / "later");
  CHECK(features.write("a=1\n"));
  CHECK(readFile(directory.path / "later" / "vdpa") == "a=1\n");
  FeatureFile none("");
  CHECK_FALSE(none.wanted());
  none.write("a=1\n");
}
