// Counting calls of the CNI plugin in a file that processes share.
#include "common/cni_calls.h"

#include <catch2/catch.hpp>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

using namespace vdpa;

namespace {

class Directory {
 public:
  Directory() {
    std::string pattern = "/tmp/vdpa-calls-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  std::string file() const { return path_ + "/cni-calls"; }

 private:
  std::string path_;
};

uint64_t countOf(const std::vector<CniCallCount>& counts, const std::string& command,
                 unsigned code) {
  for (const auto& found : counts)
    if (found.command == command && found.code == code) return found.count;
  return 0;
}

}  // namespace

TEST_CASE("CNI calls: no call is lost, whoever counts beside") {
  const Directory directory;
  const std::string file = directory.file();
  CHECK(readCniCalls(file).empty());
  constexpr int kProcesses = 4, kThreads = 4, kCalls = 500;
  std::vector<pid_t> processes;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      for (int call = 0; call < kCalls; ++call) countCniCall(file, "ADD", call % 2 == 0 ? 0 : 11);
      ::_exit(0);
    }
    processes.push_back(pid);
  }
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i)
      threads.emplace_back([&] {
        for (int call = 0; call < kCalls; ++call) countCniCall(file, "DEL", 0);
      });
  }
  for (const pid_t pid : processes) REQUIRE(::waitpid(pid, nullptr, 0) == pid);
  const auto counts = readCniCalls(file);
  CHECK(counts.size() == 3);
  CHECK(countOf(counts, "ADD", 0) == kProcesses * kCalls / 2);
  CHECK(countOf(counts, "ADD", 11) == kProcesses * kCalls / 2);
  CHECK(countOf(counts, "DEL", 0) == kThreads * kCalls);
  struct stat found {};
  REQUIRE(::stat(file.c_str(), &found) == 0);
  CHECK((found.st_mode & 07777) == 0600);
}

TEST_CASE("CNI calls: nothing is written where it must not be, and nothing fails") {
  const Directory directory;
  SECTION("no directory") {
    countCniCall(directory.file() + "/missing/file", "ADD", 0);
    CHECK_FALSE(std::filesystem::exists(directory.file()));
  }
  SECTION("a link") {
    std::ofstream(directory.file() + ".target") << "text";
    std::filesystem::create_symlink(directory.file() + ".target", directory.file());
    countCniCall(directory.file(), "ADD", 0);
    CHECK(std::filesystem::file_size(directory.file() + ".target") == 4);
  }
  SECTION("a FIFO") {
    REQUIRE(::mkfifo(directory.file().c_str(), 0600) == 0);
    countCniCall(directory.file(), "ADD", 0);
  }
  SECTION("an unknown command") {
    countCniCall(directory.file(), "EVIL", 0);
    CHECK_FALSE(std::filesystem::exists(directory.file()));
  }
}

TEST_CASE("CNI calls: more kinds than fit are not counted") {
  const Directory directory;
  for (unsigned code = 0; code < 300; ++code) countCniCall(directory.file(), "ADD", code);
  const auto counts = readCniCalls(directory.file());
  CHECK(counts.size() == 256);
  CHECK(countOf(counts, "ADD", 255) == 1);
}
