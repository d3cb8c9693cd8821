// Whole-file writes: atomic replacement, and the old file stays on failure.
#include "common/atomic_file.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

using namespace vdpa;

namespace {

std::vector<std::string> calls;

}  // namespace

// Replaces libc's function in the whole program.
extern "C" int fsync(int fd) {
  calls.push_back("fsync " +
                  std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd)).string());
  return static_cast<int>(::syscall(SYS_fsync, fd));
}
extern "C" int rename(const char* from, const char* to) noexcept {
  calls.push_back(std::string("rename ") + from);
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

TEST_CASE("a file is replaced whole and a failure leaves it alone") {
  std::string pattern = "/tmp/vdpa-atomic-XXXXXX";
  const std::string directory = ::mkdtemp(pattern.data());
  const std::string path = directory + "/record";

  writeFileAtomically(path, "first", Durability::disk, 0600);
  CHECK(readFile(path) == "first");
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  writeFileAtomically(path, "second", Durability::memory, 0600);
  CHECK(readFile(path) == "second");

  std::filesystem::create_directory(path + ".tmp");  // the temporary file can't be made
  CHECK_THROWS_WITH(writeFileAtomically(path, "third", Durability::disk),
                    Catch::Contains(path + ".tmp"));
  CHECK(readFile(path) == "second");
  CHECK_THROWS_WITH(readFile(directory + "/none"), Catch::Contains("none: No such file"));

  const std::string folder = directory + "/folder";  // a directory, which no file can replace
  std::filesystem::create_directory(folder);
  CHECK_THROWS_WITH(writeFileAtomically(folder, "third", Durability::disk),
                    Catch::Contains("cannot rename"));
  CHECK_FALSE(std::filesystem::exists(folder + ".tmp"));
  std::filesystem::remove_all(directory);
}

TEST_CASE("a file is on the disk before it has its name") {
  std::string directory = "/tmp/vdpa-atomic-XXXXXX";
  REQUIRE(::mkdtemp(directory.data()));
  const std::string path = directory + "/record", temporary = path + ".tmp";
  const std::string content = "fsync " + temporary, name = "rename " + temporary;
  const auto callsOf = [&](Durability durability) {
    calls.clear();
    writeFileAtomically(path, "content", durability);
    return calls;
  };
  CHECK(callsOf(Durability::memory) == std::vector{name});
  CHECK(callsOf(Durability::whole) == std::vector{content, name});
  CHECK(callsOf(Durability::disk) == std::vector{content, name, "fsync " + directory});
  std::filesystem::remove_all(directory);
}
