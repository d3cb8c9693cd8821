// Links, FIFOs and directories in place of a device-info file: no other file is read or written.
#include "cni/device_info.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>

#include "common/atomic_file.h"
#include "common/unique_fd.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
namespace fs = std::filesystem;

namespace {

constexpr const char* kOther = R"({"type": "vhost-user", "vhost-user": {"path": "/other"}})";

datapath::v1::Attachment attachment() {
  datapath::v1::Attachment values;
  values.set_device_id("nic-0");
  values.set_socket("/run/vdpa/nic-0/vhost.sock");
  return values;
}

bool isOurs(const std::string& path) {
  return fs::is_regular_file(fs::symlink_status(path)) &&
         readFile(path).find("/run/vdpa/nic-0/vhost.sock") != std::string::npos;
}

std::string errorOf(const std::string& path) {
  try {
    cni::writeDeviceInfo(path, attachment());
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

size_t entriesOf(const std::string& path) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
}

}  // namespace

TEST_CASE("a new file, in a folder that is made, with the longest name") {
  const TemporaryDirectory directory;
  const std::string folder = directory.path() + "/devinfo/cni";
  for (const std::string& name : {std::string("shop-fast-c0_net1"), std::string(255, 'n')}) {
    cni::writeDeviceInfo(folder + "/" + name, attachment());
    CHECK(isOurs(folder + "/" + name));
    CHECK((fs::status(folder + "/" + name).permissions() & fs::perms::all) == fs::perms(0644));
  }
  CHECK(entriesOf(folder) == 2);
}

TEST_CASE("whatever is not a regular file is refused and stays") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/x-c0_net1", other = directory.path() + "/other";
  writeFileAtomically(other, kOther, Durability::memory);
  const std::string kind = GENERATE("link", "dangling link", "FIFO", "folder");
  CAPTURE(kind);
  if (kind == "link") fs::create_symlink(other, path);
  if (kind == "dangling link") fs::create_symlink(directory.path() + "/nothing", path);
  if (kind == "FIFO") REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  if (kind == "folder") fs::create_directory(path);
  const auto before = fs::symlink_status(path).type();
  CHECK(errorOf(path).find(path + ": it exists and is a link") != std::string::npos);
  CHECK(fs::symlink_status(path).type() == before);
  CHECK(readFile(other) == kOther);
  CHECK(entriesOf(directory.path()) == 2);
}

TEST_CASE("another name of the file that is there keeps its content") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/x-c0_net1", other = directory.path() + "/other";
  writeFileAtomically(other, kOther, Durability::memory);
  fs::create_hard_link(other, path);
  cni::writeDeviceInfo(path, attachment());
  CHECK(isOurs(path));
  CHECK(readFile(other) == kOther);
}

TEST_CASE("what a killed plugin has left beside it is not written through") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/x-c0_net1", other = directory.path() + "/other";
  const std::string temporary = directory.path() + "/.x-c0_net1";
  writeFileAtomically(other, kOther, Durability::memory);
  const std::string kind = GENERATE("link", "hard link", "FIFO");
  CAPTURE(kind);
  if (kind == "link") fs::create_symlink(other, temporary);
  if (kind == "hard link") fs::create_hard_link(other, temporary);
  if (kind == "FIFO") REQUIRE(::mkfifo(temporary.c_str(), 0600) == 0);
  cni::writeDeviceInfo(path, attachment());
  CHECK(isOurs(path));
  CHECK(readFile(other) == kOther);
  CHECK(entriesOf(directory.path()) == 2);
}

TEST_CASE("what a killed plugin has left is removed, and nothing else") {
  const TemporaryDirectory directory;
  const std::string folder = directory.path() + "/cni";
  cni::removeUnfinishedDeviceInfo(folder + "/x-c0_net1");  // no file exists
  for (const std::string& name : {std::string("x-c0_net1"), std::string(255, 'n')}) {
    const std::string path = folder + "/" + name, temporary = folder + "/." + name.substr(0, 254);
    cni::writeDeviceInfo(path, attachment());
    cni::removeUnfinishedDeviceInfo(path);
    REQUIRE(UniqueFd(::creat(temporary.c_str(), 0600)));
    cni::removeUnfinishedDeviceInfo(path);
    CHECK(isOurs(path));
    CHECK_FALSE(fs::exists(temporary));
  }
  fs::create_directory_symlink(folder, directory.path() + "/link");
  writeFileAtomically(folder + "/.x-c0_net1", kOther, Durability::memory);
  CHECK_THROWS(cni::removeUnfinishedDeviceInfo(directory.path() + "/link/x-c0_net1"));
  CHECK(fs::exists(folder + "/.x-c0_net1"));
}

TEST_CASE("the folder itself is not reached through a link in its place") {
  const TemporaryDirectory directory;
  fs::create_directory(directory.path() + "/real");
  fs::create_directory_symlink(directory.path() + "/real", directory.path() + "/cni");
  CHECK(errorOf(directory.path() + "/cni/x-c0_net1").find("cannot open") == 0);
  CHECK(entriesOf(directory.path() + "/real") == 0);
}
