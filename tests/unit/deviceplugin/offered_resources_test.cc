// The names that a plugin learns from its predecessors on this node.
#include "deviceplugin/kubelet/offered_resources.h"

#include <catch2/catch.hpp>

#include <set>
#include <string>

#include "tests/unit/datapath/temporary_directory.h"

namespace vdpa::plugin {
namespace {

using Names = std::set<std::string>;

TEST_CASE("resources offered before are known to the next plugin") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/offered";
  OfferedResources first(path);
  CHECK(first.names().empty());
  first.replace({"vdpa.io/nic", "dev.vdpa.io/nic"});
  CHECK(OfferedResources(path).names() == Names{"vdpa.io/nic", "dev.vdpa.io/nic"});
  first.replace({});
  CHECK(OfferedResources(path).names().empty());
}

TEST_CASE("resources that can't be written down are known to this plugin at least") {
  const TemporaryDirectory directory;
  OfferedResources names(directory.path() + "/missing/offered");
  names.replace({"vdpa.io/nic"});
  CHECK(names.names() == Names{"vdpa.io/nic"});
}

}  // namespace
}  // namespace vdpa::plugin
