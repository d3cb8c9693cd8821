// Accesses to memory that its pod has truncated.
#include "deviceplugin/datapath/dpdk/memory_guard.h"

#include <catch2/catch.hpp>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace {

using namespace vdpa;

constexpr size_t kPage = 4096;

bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

// A pod's memory, mapped here.
class Shared {
 public:
  explicit Shared(size_t pages) : size_(pages * kPage), file_(::memfd_create("pod", MFD_CLOEXEC)) {
    checked(::ftruncate(file_.get(), static_cast<off_t>(size_)), "cannot size it");
    void* data = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
    if (data == MAP_FAILED) throw systemError(errno, "cannot map it");
    data_ = static_cast<volatile unsigned char*>(data);
    for (size_t page = 0; page < pages; ++page) data_[page * kPage] = 1;
  }
  ~Shared() { ::munmap(const_cast<unsigned char*>(data_), size_); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  void truncate() { checked(::ftruncate(file_.get(), 0), "cannot truncate it"); }
  volatile unsigned char& page(size_t number) { return data_[number * kPage]; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(data_); }
  uint64_t size() const { return size_; }

 private:
  const size_t size_;
  const UniqueFd file_;
  volatile unsigned char* data_;
};

}  // namespace

TEST_CASE("memory that is gone reads as nothing, and its device alone is told of") {
  dpdk::MemoryGuard guard;
  Shared mine(4), other(4);
  guard.add(1, mine.address(), mine.size());
  guard.add(2, other.address(), other.size());
  CHECK_FALSE(readable(guard.fd()));
  CHECK(guard.takeFailed().empty());

  mine.truncate();
  CHECK(mine.page(2) == 0);
  mine.page(3) = 7;
  CHECK(mine.page(3) == 7);
  CHECK(other.page(2) == 1);
  CHECK(readable(guard.fd()));
  CHECK(guard.takeFailed() == std::vector<int>{1});
  CHECK_FALSE(readable(guard.fd()));
  CHECK(guard.takeFailed().empty());
}

TEST_CASE("one fault is the last of a device's memory, and takes nothing of its neighbours") {
  dpdk::MemoryGuard guard;
  constexpr size_t kPages = 40'000;  // with two mappings for each, more than a process may have
  Shared mine(kPages);
  guard.add(1, mine.address(), mine.size());
  mine.truncate();
  for (size_t page = 0; page < kPages; page += 2) CHECK(mine.page(page) == 0);
  CHECK(guard.takeFailed() == std::vector<int>{1});
  for (size_t page = 1; page < kPages; page += 2) CHECK(mine.page(page) == 0);
  CHECK_FALSE(readable(guard.fd()));
}

TEST_CASE("memory that was not told of is replaced page by page") {
  dpdk::MemoryGuard guard;
  Shared mine(4), other(4);
  mine.truncate();
  CHECK(mine.page(3) == 0);
  CHECK(mine.page(1) == 0);
  CHECK(other.page(0) == 1);
  CHECK(guard.takeFailed().empty());
}

TEST_CASE("a device that has left is not told of") {
  dpdk::MemoryGuard guard;
  Shared memory(1);
  guard.add(1, memory.address(), memory.size());
  memory.truncate();
  CHECK(memory.page(0) == 0);
  guard.remove(1);
  CHECK(guard.takeFailed().empty());
}

TEST_CASE("several threads fall into holes while devices come and go") {
  dpdk::MemoryGuard guard;
  constexpr int kThreads = 3, kRounds = 50;
  std::atomic<int> left{kThreads};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int vid = 1; vid <= kThreads; ++vid)
    threads.emplace_back([&, vid] {
      for (int round = 0; round < kRounds; ++round) {
        Shared memory(2);
        guard.add(vid, memory.address(), memory.size());
        memory.truncate();
        if (memory.page(0) != 0 || memory.page(1) != 0) ++wrong;
        guard.remove(vid);
      }
      --left;
    });
  size_t told = 0;
  while (left.load() > 0) told += guard.takeFailed().size();
  for (auto& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
  CHECK(told <= size_t{kThreads} * kRounds * 2);
  CHECK(guard.takeFailed().empty());
}
