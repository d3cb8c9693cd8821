// The sockets that a network names: their real location after resolving links and "..".
#include "cni/network_paths.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/stat.h>

#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "tests/unit/cni/errors.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa::cni;
namespace fs = std::filesystem;

namespace {

std::string refusalOf(const std::string& path, const std::vector<std::string>& roots = {}) {
  return errorOf([&] { confineSocket(path, roots); });
}

// Of the link itself. Following a link updates it once, if the file system records it.
time_t accessTime(const std::string& link) {
  struct stat status {};
  REQUIRE(::lstat(link.c_str(), &status) == 0);
  return status.st_atim.tv_sec;
}

constexpr const char* kRefusal = "expected vdpa-datapath's socket, datapath.sock below /run/vdpa, ";

}  // namespace

TEST_CASE("sockets in their place, which need not exist") {
  CHECK(confineSocket("/run/vdpa/datapath.sock", {}) == "/run/vdpa/datapath.sock");
  CHECK(confineSocket("/run//./vdpa/x/../datapath.sock", {}) == "/run/vdpa/datapath.sock");
  CHECK(confineSocket("/var/run/vdpa/datapath.sock", {}) ==
        fs::weakly_canonical("/var/run/vdpa/datapath.sock"));
  CHECK(confineSocket("/nonexistent/datapath.sock", {"/elsewhere", "/nonexistent/"}) ==
        "/nonexistent/datapath.sock");
}

TEST_CASE("sockets elsewhere") {
  for (const char* path :
       {"/tmp/datapath.sock", "/run/vdpa", "/run/vdpa/", "/run/vdpa2/datapath.sock",
        "/run/vdpa/../datapath.sock", "/run/vdpa/x/../../datapath.sock", "run/vdpa/datapath.sock",
        "datapath.sock", ""}) {
    CAPTURE(path);
    CHECK(refusalOf(path).find(kRefusal) != std::string::npos);
  }
  CHECK(refusalOf("run/datapath.sock", {"run"}).find(kRefusal) != std::string::npos);
  CHECK(refusalOf("/tmp/x.sock", {"/a", "/b"}).find(", /a, /b; for another directory") !=
        std::string::npos);
  CHECK(refusalOf("/tmp/x.sock").find("VDPA_CNI_ROOTS") != std::string::npos);
}

TEST_CASE("of a datapath's sockets, only its own") {
  for (const char* path :
       {"devices/nic-0/vhost.sock", "devices/nic-0/vhost.sock~", "workers/nic-0.sock",
        "switches/vdpa.io-nic/control.sock", "switches/vdpa.io-nic/ports/nic-0.sock",
        "pmds/0000:65:00.2/control.sock", "pmds/0000:65:00.2/vhost.sock", "plugin.sock"})
    for (const std::string run : {"/run/vdpa/", "/nonexistent/node/run/"}) {
      CAPTURE(run, path);
      CHECK(refusalOf(run + path, {"/nonexistent"}).find(kRefusal) != std::string::npos);
    }
  const vdpa::TemporaryDirectory directory;
  fs::create_directories(directory.path() + "/devices");
  const vdpa::UniqueFd other(::creat((directory.path() + "/devices/vhost.sock").c_str(), 0600));
  fs::create_symlink("devices/vhost.sock", directory.path() + "/datapath.sock");
  CHECK(refusalOf(directory.path() + "/datapath.sock", {directory.path()}).find(kRefusal) !=
        std::string::npos);
}

TEST_CASE("links count for where they lead") {
  const vdpa::TemporaryDirectory directory;
  const std::string& top = directory.path();
  fs::create_directories(top + "/root/below");
  fs::create_directories(top + "/other");
  fs::create_directory_symlink(top + "/root", top + "/link-to-root");
  fs::create_directory_symlink(top + "/other", top + "/root/link-out");
  fs::create_directory_symlink(top + "/root/below", top + "/root/link-below");
  fs::create_symlink(top + "/other/datapath.sock", top + "/root/datapath.sock");
  const std::vector<std::string> roots{top + "/link-to-root/"};
  const std::string real = fs::canonical(top + "/root");
  CHECK(confineSocket(top + "/root/datapath.sock", roots) == real + "/datapath.sock");
  CHECK(confineSocket(top + "/link-to-root/datapath.sock", roots) == real + "/datapath.sock");
  CHECK(confineSocket(top + "/link-to-root/link-below/datapath.sock", roots) ==
        real + "/below/datapath.sock");
  CHECK(refusalOf(top + "/root/link-out/datapath.sock", roots).find(kRefusal) != std::string::npos);
  // The path exists; the system itself refuses one that doesn't.
  const vdpa::UniqueFd other(::creat((top + "/other/datapath.sock").c_str(), 0600));
  CHECK(refusalOf(top + "/root/datapath.sock", roots).find(kRefusal) != std::string::npos);
}

TEST_CASE("links elsewhere are not followed, even to a place that is allowed") {
  const vdpa::TemporaryDirectory directory;
  const std::string root = directory.path() + "/root", link = directory.path() + "/other/link-in";
  fs::create_directories(root);
  fs::create_directories(directory.path() + "/other");
  fs::create_symlink(root, link);
  const timespec accessAndChange[] = {{1, 0}, {2, 0}};
  REQUIRE(::utimensat(AT_FDCWD, link.c_str(), accessAndChange, AT_SYMLINK_NOFOLLOW) == 0);
  CHECK(refusalOf(link + "/datapath.sock", {root}).find(kRefusal) != std::string::npos);
  CHECK(accessTime(link) == 1);
  CHECK(confineSocket(link + "/../../root/datapath.sock", {root}) ==
        fs::canonical(root).native() + "/datapath.sock");
  CHECK(accessTime(link) == 1);
}

TEST_CASE("an address has room for 107 bytes, also of where a link leads") {
  CHECK(refusalOf("/run/vdpa/" + std::string(98, 'x')) ==
        "7: datapathSocket has 108 bytes; at most 107 fit");
  const vdpa::TemporaryDirectory directory;
  const std::string deep = directory.path() + "/" + std::string(100, 'd');
  fs::create_directories(deep);
  fs::create_directory_symlink(deep, directory.path() + "/short");
  CHECK(refusalOf(directory.path() + "/short/datapath.sock", {directory.path()})
            .find("at most 107 fit") != std::string::npos);
}
