// Whole-file writes: replaced in one step, untouched on failure.
#include "common/atomic_file.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <system_error>

using namespace vdpa;

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

  const std::string folder = directory + "/folder";  // which no file can replace
  std::filesystem::create_directory(folder);
  CHECK_THROWS_WITH(writeFileAtomically(folder, "third", Durability::disk),
                    Catch::Contains("cannot rename"));
  CHECK_FALSE(std::filesystem::exists(folder + ".tmp"));
  std::filesystem::remove_all(directory);
}
