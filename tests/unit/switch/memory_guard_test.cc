// Accesses to memory that its pod has truncated.
#include "deviceplugin/datapath/memory_guard/memory_guard.h"

#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
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

  void truncate(size_t pages = 0) {
    checked(::ftruncate(file_.get(), static_cast<off_t>(pages * kPage)), "cannot truncate it");
  }
  volatile unsigned char& page(size_t number) { return data_[number * kPage]; }
  uint64_t address() const { return reinterpret_cast<uint64_t>(data_); }
  uint64_t size() const { return size_; }

 private:
  const size_t size_;
  const UniqueFd file_;
  volatile unsigned char* data_;
};

// Collects what a guard reports, in its handler.
class Failures {
 public:
  static void note(void* context, int owner) {
    auto& failures = *static_cast<Failures*>(context);
    failures.owners_[failures.count_.fetch_add(1) % kKept] = owner;
  }
  std::vector<int> take() {
    std::vector<int> owners;
    const size_t count = count_.exchange(0);
    for (size_t i = 0; i < count && i < kKept; ++i) owners.push_back(owners_[i]);
    return owners;
  }

 private:
  static constexpr size_t kKept = 1024;
  std::atomic<size_t> count_{0};
  std::array<std::atomic<int>, kKept> owners_{};
};

struct Guarded {
  explicit Guarded(MemoryGuard::Unknown unknown = MemoryGuard::Unknown::kCrash)
      : guard(unknown, Failures::note, &failures) {}
  size_t add(int owner, const Shared& memory) {
    return guard.add(owner, memory.address(), memory.size());
  }

  Failures failures;
  MemoryGuard guard;
};

using Owners = std::vector<int>;

}  // namespace

TEST_CASE("memory that is gone reads as nothing, and is reported with its owner alone") {
  Guarded guarded;
  Shared mine(4), other(4);
  guarded.add(1, mine);
  guarded.add(2, other);

  mine.truncate();
  CHECK(mine.page(2) == 0);
  mine.page(3) = 7;
  CHECK(mine.page(3) == 7);
  CHECK(other.page(2) == 1);
  CHECK(guarded.failures.take() == Owners{1});
}

TEST_CASE("a few pages that are gone leave the others of their region as they are") {
  Guarded guarded;
  Shared mine(32);
  guarded.add(1, mine);
  mine.truncate(16);
  for (size_t page = 16; page < 32; ++page) CHECK(mine.page(page) == 0);
  for (size_t page = 0; page < 16; ++page) CHECK(mine.page(page) == 1);
  CHECK(guarded.failures.take() == Owners{1});
}

TEST_CASE("a page of huge memory that is gone is replaced as a whole") {
  constexpr size_t kSize = 2 << 20;
  const UniqueFd file(::memfd_create("pod", MFD_CLOEXEC | MFD_HUGETLB));
  REQUIRE(::ftruncate(file.get(), kSize) == 0);
  void* data =
      ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file.get(), 0);
  REQUIRE(data != MAP_FAILED);
  Guarded guarded;
  guarded.guard.add(1, reinterpret_cast<uint64_t>(data), kSize, kSize);
  REQUIRE(::ftruncate(file.get(), 0) == 0);
  auto* bytes = static_cast<volatile unsigned char*>(data);
  CHECK(bytes[kSize / 2 + 5] == 0);
  bytes[0] = 3;
  CHECK(guarded.failures.take() == Owners{1});
  ::munmap(data, kSize);
}

TEST_CASE("a hardware error in a pod's memory costs only that pod its data") {
  Guarded guarded;
  Shared mine(4);
  guarded.add(1, mine);
  siginfo_t error{};
  error.si_signo = SIGBUS;
  error.si_code = BUS_MCEERR_AR;
  error.si_addr = reinterpret_cast<void*>(mine.address() + 2 * kPage + 8);
  REQUIRE(::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), ::gettid(), SIGBUS, &error) == 0);
  CHECK(mine.page(2) == 0);
  CHECK(mine.page(1) == 1);
  CHECK(guarded.failures.take() == Owners{1});
  CHECK(guarded.guard.takeHardwareError());
  CHECK_FALSE(guarded.guard.takeHardwareError());
}

TEST_CASE("faults of many pages end soon, and take nothing of the region's neighbours") {
  Guarded guarded;
  constexpr size_t kPages = 40'000;  // with two mappings for each, more than a process may have
  Shared mine(kPages);
  guarded.add(1, mine);
  mine.truncate();
  for (size_t page = 0; page < kPages; page += 2) CHECK(mine.page(page) == 0);
  CHECK(guarded.failures.take() == Owners{1});
  for (size_t page = 1; page < kPages; page += 2) CHECK(mine.page(page) == 0);
  CHECK(guarded.failures.take().empty());
}

TEST_CASE("memory that was not added is replaced page by page, if it may be") {
  Guarded guarded(MemoryGuard::Unknown::kReplacePage);
  Shared mine(4), other(4);
  mine.truncate();
  CHECK(mine.page(3) == 0);
  CHECK(mine.page(1) == 0);
  CHECK(other.page(0) == 1);
  CHECK(guarded.failures.take() == Owners{-1, -1});
}

TEST_CASE("memory that was removed is nobody's") {
  Guarded guarded(MemoryGuard::Unknown::kReplacePage);
  Shared mine(1), other(1);
  const size_t first = guarded.add(1, mine);
  guarded.add(2, other);
  guarded.guard.remove(first);
  mine.truncate();
  CHECK(mine.page(0) == 0);
  CHECK(guarded.failures.take() == Owners{-1});
  CHECK(guarded.add(3, mine) == first);  // its place is used again
}

TEST_CASE("it has room for the regions of all ports, and says when there are more") {
  Guarded guarded;
  Shared last(1);
  for (size_t i = 1; i < MemoryGuard::kMaxRegions; ++i) guarded.guard.add(1, 4096, 4096);
  guarded.add(2, last);
  CHECK_THROWS_WITH(guarded.guard.add(3, 4096, 4096),
                    "all pods share more than 65536 regions of memory");
  last.truncate();
  CHECK(last.page(0) == 0);
  CHECK(guarded.failures.take() == Owners{2});
}

TEST_CASE("several threads fall into holes while regions come and go") {
  Guarded guarded;
  constexpr int kThreads = 3, kRounds = 50;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int owner = 1; owner <= kThreads; ++owner)
    threads.emplace_back([&, owner] {
      for (int round = 0; round < kRounds; ++round) {
        Shared memory(2);
        const size_t region = guarded.add(owner, memory);
        memory.truncate();
        if (memory.page(0) != 0 || memory.page(1) != 0) ++wrong;
        guarded.guard.remove(region);
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
  CHECK(guarded.failures.take().size() == size_t{kThreads} * kRounds);
}
