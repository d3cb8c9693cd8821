// Sockets that a network names: where they really are, whatever links and ".." lead there.
#include "cni/network_paths.h"

#include <fcntl.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/unit/cni/errors.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa::cni;
namespace fs = std::filesystem;

namespace {

std::string refusalOf(const std::string& path, const std::vector<std::string>& roots = {}) {
  return errorOf([&] { confineSocket(path, roots); });
}

}  // namespace

TEST_CASE("sockets in their place, which need not exist") {
  CHECK(confineSocket("/run/vdpa/datapath.sock", {}) == "/run/vdpa/datapath.sock");
  CHECK(confineSocket("/run//./vdpa/x/../datapath.sock", {}) == "/run/vdpa/datapath.sock");
  CHECK(confineSocket("/nonexistent/x.sock", {"/elsewhere", "/nonexistent/"}) ==
        "/nonexistent/x.sock");
}

TEST_CASE("sockets elsewhere") {
  for (const char* path : {"/tmp/x.sock", "/run/vdpa", "/run/vdpa2/x.sock", "/run/vdpa/../x.sock",
                           "/run/vdpa/x/../../x.sock", "run/vdpa/x.sock", "x.sock", "",
                           "/run/vdpa/devices/nic-0/vhost.sock", "/run/vdpa/workers/nic-0.sock",
                           "/run/vdpa/x/../switches/nic/control.sock"}) {
    CAPTURE(path);
    CHECK(refusalOf(path).find(
              "expected vdpa-datapath's socket, below /run/vdpa; for another directory") !=
          std::string::npos);
  }
  CHECK(refusalOf("/tmp/x.sock", {"/a", "/b"}).find("/run/vdpa, /a, /b;") != std::string::npos);
  CHECK(refusalOf("/tmp/x.sock").find("VDPA_CNI_ROOTS") != std::string::npos);
}

TEST_CASE("links count for where they lead") {
  const vdpa::TemporaryDirectory directory;
  const std::string& top = directory.path();
  fs::create_directories(top + "/root/below");
  fs::create_directories(top + "/other");
  fs::create_directory_symlink(top + "/root", top + "/link-to-root");
  fs::create_directory_symlink(top + "/other", top + "/root/link-out");
  fs::create_symlink(top + "/other/x.sock", top + "/root/x.sock");
  fs::create_symlink(top + "/root/below", top + "/other/link-in");
  const std::vector<std::string> roots{top + "/link-to-root"};
  const std::string real = fs::canonical(top + "/root");
  CHECK(confineSocket(top + "/root/a.sock", roots) == real + "/a.sock");
  CHECK(confineSocket(top + "/link-to-root/a.sock", roots) == real + "/a.sock");
  CHECK(confineSocket(top + "/other/link-in/a.sock", roots) == real + "/below/a.sock");
  CHECK(refusalOf(top + "/root/link-out/x.sock", roots)
            .find("expected vdpa-datapath's socket, below") != std::string::npos);
  CHECK(refusalOf(top + "/other/link-in/../../other/x.sock", roots)
            .find("expected vdpa-datapath's socket, below") != std::string::npos);
  // One that has something at its end; one that has nothing is refused by the system.
  vdpa::UniqueFd(::creat((top + "/other/x.sock").c_str(), 0600));
  CHECK(refusalOf(top + "/root/x.sock", roots).find("expected vdpa-datapath's socket, below") !=
        std::string::npos);
}

TEST_CASE("an address has room for 107 bytes, also of where a link leads") {
  CHECK(refusalOf("/run/vdpa/" + std::string(98, 'x')) ==
        "7: datapathSocket has 108 bytes; at most 107 fit");
  const vdpa::TemporaryDirectory directory;
  const std::string deep = directory.path() + "/" + std::string(100, 'd');
  fs::create_directories(deep);
  fs::create_directory_symlink(deep, directory.path() + "/short");
  CHECK(refusalOf(directory.path() + "/short/x.sock", {directory.path()}).find("at most 107 fit") !=
        std::string::npos);
}
