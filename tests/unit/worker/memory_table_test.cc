// The memory that a pod may share, and reads of it after the pod has truncated it.
#include "deviceplugin/datapath/vhost_user/memory_table.h"

#include <catch2/catch.hpp>
#include <linux/memfd.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/node_memory.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "tests/unit/worker/front_end.h"

using namespace vdpa;
using namespace vdpa::vhost_user;
using namespace vdpa::vhost_user::test;

namespace {

Message twoRegions(WireRegion first, WireRegion second) {
  struct {
    uint32_t count, padding;
    WireRegion regions[2];
  } table{2, 0, {first, second}};
  Message message = with(Request::SetMemTable, table);
  for (int i = 0; i < 2; ++i) message.descriptors.push_back(memoryFile(0x10000));
  return message;
}

void refused(Message message, const std::string& text) {
  const size_t before = openDescriptors() - message.descriptors.size();
  CHECK_THROWS_WITH(MemoryTable(std::move(message)), Catch::Contains(text));
  message.descriptors.clear();  // NOLINT(bugprone-use-after-move): refused ones stay in it
  CHECK(openDescriptors() == before);
}

// Adds this many free huge pages while it exists. Tests that use it take turns.
class HugePages {
 public:
  explicit HugePages(int more) : lock_(::open(kFile, O_RDONLY | O_CLOEXEC)) {
    if (::flock(lock_.get(), LOCK_EX) < 0) throw std::runtime_error("cannot lock the huge pages");
    before_ = read();
    write(before_ + more);
    if (read() == before_ + more) return;
    write(before_);
    throw std::runtime_error("the machine lacks memory for huge pages");
  }
  ~HugePages() { write(before_); }
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

 private:
  static constexpr const char* kFile = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
  static int read() {
    int number = -1;
    std::ifstream(kFile) >> number;
    return number;
  }
  static void write(int number) { std::ofstream(kFile) << number; }

  const UniqueFd lock_;
  int before_;
};

}  // namespace

TEST_CASE("a region is found by the pod's addresses") {
  const MemoryTable table(memoryTable(memoryFile(0x3000), 0x2000, 0x10000, 0x1000));
  CHECK(table.contains(0x10000, 0x2000));
  CHECK(table.contains(0x11fff, 1));
  CHECK_FALSE(table.contains(0x11fff, 2));
  CHECK_FALSE(table.contains(0xffff, 2));
  CHECK_FALSE(table.contains(0x10000, ~uint64_t{0}));
}

TEST_CASE("what a pod shares without having allocated it is told, each file once") {
  const uint64_t page = 0x1000;
  WireRegion low{}, high{};
  low.size = high.size = 0x8000;
  high.guestAddress = high.userAddress = 0x10000;
  Message message = twoRegions(low, high);
  const UniqueFd file(::dup(message.descriptors[0].get()));
  const MemoryTable table(std::move(message));
  CHECK(table.unallocated() == 2 * 0x10000);
  REQUIRE(::pwrite(file.get(), "x", 1, 0) == 1);
  CHECK(table.unallocated() == 2 * 0x10000 - page);

  Message same = twoRegions(low, high);
  same.descriptors[1] = UniqueFd(::dup(same.descriptors[0].get()));
  const MemoryTable once(std::move(same));
  CHECK(once.unallocated() == 0x10000);
}

TEST_CASE("ranges that cannot be") {
  const uint64_t top = ~uint64_t{0};
  refused(memoryTable(memoryFile(0x1000), 0), "its size is 0");
  refused(memoryTable(memoryFile(0x1000), 0x1001), "needs 4097 bytes of its file, which has 4096");
  refused(memoryTable(memoryFile(0x1000), 0x1000, 0x10000, 1), "needs 4097 bytes");
  refused(memoryTable(memoryFile(0x1000), 0x1000, top - 10), "beyond 64 bits");
  refused(memoryTable(memoryFile(0x1000), 0x1000, 0x10000, top - 10), "beyond 64 bits");
  refused(twoRegions({0x1000, 0x1000, 0x1000, 0}, {0x8000, 0x1000, 0x1fff, 0}), "0 and 1 overlap");
  refused(twoRegions({0x1000, 0x1000, 0x1000, 0}, {0x1fff, 0x1000, 0x8000, 0}), "0 and 1 overlap");
  CHECK(MemoryTable(twoRegions({0x1000, 0x1000, 0x1000, 0}, {0x2000, 0x1000, 0x2000, 0}))
            .regions()
            .size() == 2);
}

TEST_CASE("no more than a node has can be shared, whatever a file's size") {
  const uint64_t memory = nodeMemory();
  const auto table = [](WireRegion first, WireRegion second) {
    Message message = twoRegions(first, second);
    message.descriptors.clear();
    for (const auto& region : {first, second})
      message.descriptors.push_back(memoryFile(region.fileOffset + region.size));
    return message;
  };
  // A virtual machine with nearly all of the memory, below and above the gap for PCI.
  CHECK(
      MemoryTable(table({0, 0x1000, 0x1000, 0}, {1ull << 40, memory - 0x1000, 1ull << 40, 0x1000}))
          .regions()
          .size() == 2);
  refused(table({0, memory, 0x1000, 0}, {1ull << 50, memory + 0x1000, 1ull << 50, 0}),
          "twice this node's memory");
  refused(table({0, 0x1000, 0x1000, 0}, {1ull << 50, 0x1000, 1ull << 50, 2 * memory}),
          "twice this node's memory");
}

TEST_CASE("descriptors that are no memory to share") {
  int pipe[2];
  REQUIRE(::pipe(pipe) == 0);
  const UniqueFd writer(pipe[1]);
  refused(memoryTable(UniqueFd(pipe[0]), 0x1000), "is not open for reading and writing");
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  const UniqueFd other(pair[1]);
  refused(memoryTable(UniqueFd(pair[0]), 0x1000), "is not a file");
  refused(memoryTable(eventFd(), 0x1000), "is not a file");
  refused(memoryTable(UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)), 0x100),
          "not open for reading and writing");
  refused(memoryTable(UniqueFd(::open("/proc/self/exe", O_PATH | O_CLOEXEC)), 0x100),
          "not open for reading and writing");
  refused(memoryTable(UniqueFd(::open("/proc/self/comm", O_RDWR | O_CLOEXEC)), 0x100),
          "not a file in memory");
}

TEST_CASE("a file on an ordinary file system is refused: the pod could make an access hang") {
  char path[] = "/var/tmp/vdpa-test-XXXXXX";
  UniqueFd file(::mkstemp(path));
  REQUIRE(file);
  ::unlink(path);
  REQUIRE(::ftruncate(file.get(), 0x1000) == 0);
  refused(memoryTable(std::move(file), 0x1000), "expected a memfd, tmpfs or hugetlbfs");
}

TEST_CASE("reading and writing, within and beyond") {
  UniqueFd file = memoryFile(0x2000);
  const uint32_t number = 42;
  REQUIRE(::pwrite(file.get(), &number, sizeof number, 0x1004) == sizeof number);
  const int raw = file.get();
  const MemoryTable table(memoryTable(std::move(file), 0x1000, 0x10000, 0x1000));
  uint32_t value = 0;
  table.read(0x10004, std::as_writable_bytes(std::span(&value, 1)));
  CHECK(value == 42);
  value = 43;
  table.write(0x10008, std::as_bytes(std::span(&value, 1)));
  table.read(0x10008, std::as_writable_bytes(std::span(&value, 1)));
  CHECK(value == 43);
  CHECK_THROWS_WITH(table.read(0x10ffe, std::as_writable_bytes(std::span(&value, 1))),
                    Catch::Contains("not within one memory region"));

  REQUIRE(::ftruncate(raw, 0x1000) == 0);
  CHECK_THROWS_WITH(table.read(0x10004, std::as_writable_bytes(std::span(&value, 1))),
                    Catch::Contains("its file was truncated"));
  CHECK_THROWS_WITH(table.write(0x10004, std::as_bytes(std::span(&value, 1))),
                    Catch::Contains("its file was truncated"));
  CHECK_THROWS_AS(table.checkFiles(), ProtocolError);
}

TEST_CASE("memory of huge pages") {
  constexpr size_t kSize = 2 << 20;
  UniqueFd file(::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB));
  REQUIRE(file);
  REQUIRE(::ftruncate(file.get(), kSize) == 0);
  const HugePages pages(1);
  REQUIRE(::fallocate(file.get(), 0, 0, kSize) == 0);
  const MemoryTable table(memoryTable(std::move(file), kSize));
  const uint32_t number = 42;
  table.write(0x10000 + 0x12344, std::as_bytes(std::span(&number, 1)));
  uint32_t value = 0;
  table.read(0x10000 + 0x12344, std::as_writable_bytes(std::span(&value, 1)));
  CHECK(value == 42);
}

TEST_CASE("huge pages that nobody has allocated are refused") {
  constexpr size_t kPage = 2 << 20;
  const auto file = [](size_t pages) {
    UniqueFd made(::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB));
    REQUIRE(made);
    REQUIRE(::ftruncate(made.get(), static_cast<off_t>(pages * kPage)) == 0);
    return made;
  };
  refused(memoryTable(file(1), kPage),
          "0 of the 2 MiB of huge pages it needs exist; the VM's "
          "memory is not allocated: prealloc=on");

  const HugePages pages(4);
  UniqueFd part = file(4);
  REQUIRE(::fallocate(part.get(), 0, 0, 3 * kPage) == 0);
  const auto table = [&part](WireRegion first, WireRegion second) {
    Message message = twoRegions(first, second);
    message.descriptors.clear();
    for (int i = 0; i < 2; ++i) message.descriptors.emplace_back(::dup(part.get()));
    return message;
  };
  refused(memoryTable(UniqueFd(::dup(part.get())), 3 * kPage + 1),
          "6 of the 8 MiB of huge pages it needs exist");
  refused(table({0, 2 * kPage, 0, 0}, {1 << 30, 2 * kPage, 1 << 30, 2 * kPage}), "6 of the 8 MiB");
  // A part of the file; two parts with the gap of a PC within a page; the same part twice.
  // rte_vhost also maps the part of the file before the region.
  UniqueFd behind = file(4);
  REQUIRE(::fallocate(behind.get(), 0, 3 * kPage, kPage) == 0);
  refused(memoryTable(std::move(behind), kPage, 0x10000, 3 * kPage), "2 of the 8 MiB");

  CHECK(MemoryTable(memoryTable(UniqueFd(::dup(part.get())), 3 * kPage)).regions().size() == 1);
  CHECK(MemoryTable(memoryTable(UniqueFd(::dup(part.get())), kPage, 0x10000, kPage))
            .regions()
            .size() == 1);
  CHECK(MemoryTable(table({0, 0xa0000, 0, 0}, {0xc0000, 3 * kPage - 0xc0000, 0xc0000, 0xc0000}))
            .regions()
            .size() == 2);
  CHECK(
      MemoryTable(table({0, 2 * kPage, 0, 0}, {1 << 30, 2 * kPage, 1 << 30, 0})).regions().size() ==
      2);
}

TEST_CASE("the same files are recognised by what they are, not by descriptor") {
  const UniqueFd file = memoryFile(0x1000);
  const auto copy = [&file] { return UniqueFd(::dup(file.get())); };
  const MemoryTable table(memoryTable(copy(), 0x1000));
  CHECK(table.sameAs(MemoryTable(memoryTable(copy(), 0x1000))));
  CHECK_FALSE(table.sameAs(MemoryTable(memoryTable(memoryFile(0x1000), 0x1000))));
  CHECK(table.sameAddresses(MemoryTable(memoryTable(memoryFile(0x1000), 0x1000))));
  CHECK_FALSE(table.sameAddresses(MemoryTable(memoryTable(copy(), 0x800))));
}

TEST_CASE("a region is had when it is the same part of the same file at the same address") {
  const UniqueFd file = memoryFile(0x2000);
  const auto table = [&file](uint64_t size) {
    return MemoryTable(memoryTable(UniqueFd(::dup(file.get())), size));
  };
  const MemoryTable whole = table(0x2000), half = table(0x1000);
  CHECK(whole.has(table(0x2000).regions()[0]));
  CHECK_FALSE(whole.has(half.regions()[0]));
  CHECK_FALSE(whole.has(MemoryTable(memoryTable(memoryFile(0x2000), 0x2000)).regions()[0]));
}
