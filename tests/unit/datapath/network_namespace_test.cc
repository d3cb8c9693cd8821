// Whether an owner's network namespace still exists, and when that can't be determined.
#include "deviceplugin/datapath/netlink/network_namespace.h"

#include <catch2/catch.hpp>
#include <sys/resource.h>

#include <fstream>
#include <string>

#include "deviceplugin/datapath/model/namespace_id.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace vdpa::datapath;

TEST_CASE("a namespace is gone when its path names another thing or nothing") {
  const TemporaryDirectory directory;
  const std::string file = directory.path() + "/file";
  std::ofstream(file) << "";
  const NamespaceId id = namespaceAt("/proc/self/ns/net");
  CHECK(id != NamespaceId{});
  CHECK_FALSE(namespaceGone("/proc/self/ns/net", id));
  CHECK(namespaceGone("/proc/self/ns/uts", id));
  CHECK(namespaceGone(file, id));
  CHECK(namespaceGone(file + "/below", id));
  CHECK(namespaceGone(directory.path() + "/none", id));
  CHECK_FALSE(namespaceGone(directory.path() + "/none", NamespaceId{}));
  CHECK(namespaceAt(file) == NamespaceId{});
}

TEST_CASE("a namespace that can't be looked at, since descriptors are used up, isn't gone") {
  const NamespaceId id = namespaceAt("/proc/self/ns/net");
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit none{0, limit.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  const bool gone = namespaceGone("/proc/self/ns/net", id);
  const NamespaceId seen = namespaceAt("/proc/self/ns/net");
  ::setrlimit(RLIMIT_NOFILE, &limit);
  CHECK_FALSE(gone);
  CHECK(seen == NamespaceId{});
}
