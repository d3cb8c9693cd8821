// Moving a process out of its container's cgroups, on directories laid out as by the kernel.
#include "deviceplugin/datapath/processes/cgroup.h"

#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/atomic_file.h"
#include "tests/unit/datapath/temporary_directory.h"

namespace fs = std::filesystem;

namespace {

class Layout {
 public:
  // The kernel makes the files of a new cgroup; here they must exist before.
  void file(const std::string& path, const std::string& content = "") {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << content;
  }
  std::string content(const std::string& path) { return vdpa::readFile((root / path).string()); }

  const vdpa::TemporaryDirectory directory;
  const fs::path root{directory.path()};
};

}  // namespace

TEST_CASE("cgroup v2 has one hierarchy") {
  Layout layout;
  layout.file("cgroup.procs");
  layout.file("vdpa/cgroup.procs");
  vdpa::datapath::moveToOwnCgroup(layout.root, 4711);
  CHECK(layout.content("vdpa/cgroup.procs") == "4711");
}

TEST_CASE(
    "cgroup v1 has one for each controller, v2's beside them, and a cpuset needs its values "
    "first") {
  Layout layout;
  for (const char* hierarchy : {"cpu", "cpuset", "unified"}) {
    layout.file(std::string(hierarchy) + "/cgroup.procs");
    layout.file(std::string(hierarchy) + "/vdpa/cgroup.procs");
  }
  layout.file("cpuset/cpuset.cpus", "0-1\n");
  layout.file("cpuset/cpuset.mems", "0\n");
  layout.file("cpuset/vdpa/cpuset.cpus", "\n");
  layout.file("cpuset/vdpa/cpuset.mems", "1\n");
  fs::create_directory_symlink("cpu", layout.root / "cpuacct");
  vdpa::datapath::moveToOwnCgroup(layout.root, 4711);
  for (const char* hierarchy : {"cpu", "cpuset", "unified"})
    CHECK(layout.content(std::string(hierarchy) + "/vdpa/cgroup.procs") == "4711");
  CHECK(layout.content("cpuset/vdpa/cpuset.cpus") == "0-1\n");
  CHECK(layout.content("cpuset/vdpa/cpuset.mems") == "1\n");  // an operator's choice stays
}

TEST_CASE("memory is bounded in the hierarchy that does it") {
  Layout v2;
  v2.file("cgroup.procs");
  v2.file("vdpa/memory.max", "max\n");
  vdpa::datapath::limitOwnCgroup(v2.root, 5ull << 30);
  CHECK(v2.content("vdpa/memory.max").starts_with("5368709120"));

  Layout v1;
  v1.file("cpu/cgroup.procs");
  v1.file("memory/cgroup.procs");
  v1.file("memory/vdpa/memory.limit_in_bytes", "4096\n");
  vdpa::datapath::limitOwnCgroup(v1.root, 0);
  CHECK(v1.content("memory/vdpa/memory.limit_in_bytes").starts_with("-1"));
  CHECK(fs::exists(v1.root / "cpu/vdpa"));
  CHECK_FALSE(fs::exists(v1.root / "cpu/vdpa/memory.max"));
}

TEST_CASE("v2: no huge page of any size may be reserved, once the controller is enabled") {
  Layout v2;
  v2.file("cgroup.procs");
  v2.file("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
  v2.file("cgroup.subtree_control");
  for (const char* size : {"2MB", "1GB"}) {
    v2.file(fmt::format("vdpa/hugetlb.{}.rsvd.max", size));
    v2.file(fmt::format("vdpa/hugetlb.{}.rsvd.current", size));
    v2.file(fmt::format("vdpa/hugetlb.{}.max", size));
  }
  CHECK(vdpa::datapath::reserveNoHugePages(v2.root).empty());
  CHECK(v2.content("cgroup.subtree_control") == "+hugetlb");
  for (const char* size : {"2MB", "1GB"}) {
    CHECK(v2.content(fmt::format("vdpa/hugetlb.{}.rsvd.max", size)) == "0");
    // A page that a pod has reserved counts as used by the process that touches it first.
    CHECK(v2.content(fmt::format("vdpa/hugetlb.{}.max", size)).empty());
    CHECK(v2.content(fmt::format("vdpa/hugetlb.{}.rsvd.current", size)).empty());
  }
}

TEST_CASE("v1: no huge page of any size may be reserved") {
  Layout v1;
  v1.file("cpu/cgroup.procs");
  v1.file("hugetlb/cgroup.procs");
  v1.file("hugetlb/vdpa/hugetlb.2MB.rsvd.limit_in_bytes");
  v1.file("hugetlb/vdpa/hugetlb.1GB.rsvd.limit_in_bytes");
  v1.file("hugetlb/vdpa/hugetlb.2MB.limit_in_bytes");
  CHECK(vdpa::datapath::reserveNoHugePages(v1.root).empty());
  CHECK(v1.content("hugetlb/vdpa/hugetlb.2MB.rsvd.limit_in_bytes") == "0");
  CHECK(v1.content("hugetlb/vdpa/hugetlb.1GB.rsvd.limit_in_bytes") == "0");
  CHECK(v1.content("hugetlb/vdpa/hugetlb.2MB.limit_in_bytes").empty());
}

TEST_CASE("v1 and v2 together: the controller may be v2's") {
  Layout both;
  both.file("cpu/cgroup.procs");
  both.file("memory/cgroup.procs");
  both.file("unified/cgroup.procs");
  both.file("unified/cgroup.controllers", "hugetlb\n");
  both.file("unified/cgroup.subtree_control");
  both.file("unified/vdpa/hugetlb.2MB.rsvd.max");
  CHECK(vdpa::datapath::reserveNoHugePages(both.root).empty());
  CHECK(both.content("unified/cgroup.subtree_control") == "+hugetlb");
  CHECK(both.content("unified/vdpa/hugetlb.2MB.rsvd.max") == "0");
  CHECK_FALSE(fs::exists(both.root / "cpu/cgroup.subtree_control"));
}

TEST_CASE("a limit that cannot be set is named and keeps no other from being set") {
  Layout layout;
  layout.file("cpu/cgroup.procs");
  layout.file("cpu/vdpa");  // no cgroup can be made
  layout.file("hugetlb/cgroup.procs");
  layout.file("unified/cgroup.procs");
  layout.file("unified/cgroup.controllers", "hugetlb\n");
  layout.file("unified/cgroup.subtree_control/x");  // a directory, which can't be written
  std::vector<std::string> names{"cpu/vdpa", "unified/cgroup.subtree_control"};
  for (const char* hierarchy : {"hugetlb", "unified"})
    for (const char* name : {"rsvd.max", "rsvd.limit_in_bytes"}) {
      names.push_back(fmt::format("{}/vdpa/hugetlb.1GB.{}", hierarchy, name));
      fs::create_directories(layout.root / names.back());
      layout.file(fmt::format("{}/vdpa/hugetlb.2MB.{}", hierarchy, name));
    }
  const auto failures = vdpa::datapath::reserveNoHugePages(layout.root);
  for (const auto& name : names) {
    CAPTURE(name);
    CHECK(std::count_if(failures.begin(), failures.end(), [&](const auto& failure) {
            return std::string(failure.what()).find(layout.root / name) != std::string::npos;
          }) == 1);
  }
  CHECK(failures.size() == names.size());
  for (const char* hierarchy : {"hugetlb", "unified"})
    for (const char* name : {"rsvd.max", "rsvd.limit_in_bytes"})
      CHECK(layout.content(fmt::format("{}/vdpa/hugetlb.2MB.{}", hierarchy, name)) == "0");
}

TEST_CASE("a kernel without that limit is named") {
  Layout layout;
  layout.file("cgroup.procs");
  layout.file("cgroup.controllers", "cpu memory\n");
  layout.file("cgroup.subtree_control");
  layout.file("vdpa/hugetlb.2MB.max");  // before Linux 5.7
  CHECK_THROWS_WITH(vdpa::datapath::reserveNoHugePages(layout.root),
                    Catch::Contains("limits reservations of huge pages"));
  CHECK(layout.content("cgroup.subtree_control").empty());
  CHECK(layout.content("vdpa/hugetlb.2MB.max").empty());
}

TEST_CASE("what is not a cgroup file system is named") {
  Layout layout;
  CHECK_THROWS_WITH(vdpa::datapath::moveToOwnCgroup(layout.root, 4711),
                    Catch::Contains("no cgroup hierarchy below " + layout.root.string()));
  layout.file("cgroup.procs");
  CHECK_THROWS_WITH(vdpa::datapath::moveToOwnCgroup(layout.root, 4711),
                    Catch::Contains((layout.root / "vdpa/cgroup.procs").string()));
}

TEST_CASE("our cgroups are removed where they are empty, and named where they aren't") {
  Layout layout;
  for (const char* hierarchy : {"cpu", "cpuset", "unified"})
    layout.file(std::string(hierarchy) + "/cgroup.procs");
  fs::create_directory(layout.root / "cpu/vdpa");
  layout.file("unified/vdpa/busy");
  const auto left = vdpa::datapath::removeOwnCgroup(layout.root);
  CHECK_FALSE(fs::exists(layout.root / "cpu/vdpa"));
  REQUIRE(left.size() == 1);
  CHECK_THAT(left[0], Catch::Contains((layout.root / "unified/vdpa").string()) &&
                          Catch::Contains("Directory not empty"));
}

TEST_CASE("what is in the cgroup, how much it may have, and how often the kernel ended a process") {
  Layout v2;
  v2.file("cgroup.procs");
  v2.file("vdpa/memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n");
  v2.file("vdpa/memory.current", "1048576\n");
  v2.file("vdpa/memory.max", "max\n");
  const auto two = vdpa::datapath::ownMemory(v2.root);
  REQUIRE(two);
  CHECK(two->kills == 2);
  CHECK(two->used == 1 << 20);
  CHECK(two->limit == UINT64_MAX);

  Layout v1;
  v1.file("cpu/cgroup.procs");
  v1.file("memory/cgroup.procs");
  v1.file("memory/vdpa/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n");
  v1.file("memory/vdpa/memory.usage_in_bytes", "4096\n");
  v1.file("memory/vdpa/memory.limit_in_bytes", "8192\n");
  const auto one = vdpa::datapath::ownMemory(v1.root);
  REQUIRE(one);
  CHECK(one->kills == 7);
  CHECK(one->used == 4096);
  CHECK(one->limit == 8192);

  Layout without;
  without.file("cgroup.procs");
  CHECK_FALSE(vdpa::datapath::ownMemory(without.root));
  CHECK_FALSE(vdpa::datapath::ownMemory(""));
}
