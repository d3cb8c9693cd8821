#include "deviceplugin/datapath/switch/ports/guest_memory.h"

#include <catch2/catch.hpp>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <system_error>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/address_map.h"
#include "tests/unit/worker/front_end.h"

namespace {

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::vhost_user;
using namespace vdpa::vhost_user::test;

constexpr uint64_t kPage = 4096;

std::atomic<int> failed{-1};

struct Guard {
  Guard() { failed = -1; }
  MemoryGuard guard{MemoryGuard::Unknown::kCrash, [](void*, int owner) { failed = owner; },
                    nullptr};
};

// Two regions of one file: guest and user addresses differ, and the second starts within a page.
Message twoRegions(const UniqueFd& file) {
  struct {
    uint32_t count = 2, padding = 0;
    WireRegion regions[2] = {{0, 2 * kPage, 0x7f0000000000, 0},
                             {0x100000, kPage, 0x7e0000000000, 2 * kPage + 512}};
  } table;
  Message message = with(Request::SetMemTable, table);
  for (int i = 0; i < 2; ++i) message.descriptors.emplace_back(::dup(file.get()));
  return message;
}

std::byte* at(const virtqueue::AddressMap& map, uint64_t address, uint64_t bytes) {
  const auto* range = map.whole(address, bytes, virtqueue::Access::kReadWrite);
  return range ? range->at(address) : nullptr;
}

}  // namespace

TEST_CASE_METHOD(Guard, "memory is found by guest and by user addresses") {
  const UniqueFd file = memoryFile(4 * kPage);
  const char text[] = "in the second region";
  REQUIRE(::pwrite(file.get(), text, sizeof text, 2 * kPage + 512 + 100) == sizeof text);
  const MemoryTable table(twoRegions(file));
  const GuestMemory memory(table, 7, guard);

  std::byte* found = at(memory.byGuest(), 0x100000 + 100, sizeof text);
  REQUIRE(found);
  CHECK(std::memcmp(found, text, sizeof text) == 0);
  CHECK(at(memory.byUser(), 0x7e0000000000 + 100, sizeof text) == found);
  CHECK(at(memory.byGuest(), 0x7e0000000000, 1) == nullptr);
  CHECK(at(memory.byGuest(), 0x100000, kPage + 1) == nullptr);
  // Both log by guest-physical addresses.
  for (const auto* map : {&memory.byGuest(), &memory.byUser()}) {
    const uint64_t address = map == &memory.byUser() ? 0x7e0000000000 : 0x100000;
    CHECK(map->whole(address, 1, virtqueue::Access::kRead)->physicalAt(address + 5) == 0x100005);
  }
  *at(memory.byGuest(), 0, 1) = std::byte{42};
  std::byte stored{};
  REQUIRE(::pread(file.get(), &stored, 1, 0) == 1);
  CHECK(stored == std::byte{42});
}

TEST_CASE_METHOD(Guard, "the files need not stay open, and the mappings end with it") {
  std::optional<MemoryTable> table(twoRegions(memoryFile(4 * kPage)));
  auto memory = std::make_unique<GuestMemory>(*table, 7, guard);
  const size_t open = openDescriptors();
  const MemoryTable without = table->withoutFiles();
  CHECK(without.sameAs(*table));
  table.reset();
  CHECK(openDescriptors() == open - 2);
  std::byte* where = at(memory->byGuest(), 0, 1);
  CHECK(*where == std::byte{0});
  memory.reset();
  unsigned char resident;
  CHECK(::mincore(where, kPage, &resident) == -1);
}

TEST_CASE_METHOD(Guard, "large memory is unmapped to its last page") {
  constexpr uint64_t kSize = (130ull << 20) + kPage;
  auto memory = std::make_unique<GuestMemory>(MemoryTable(memoryTable(memoryFile(kSize), kSize, 0)),
                                              7, guard);
  std::byte* start = at(memory->byGuest(), 0, kSize);
  REQUIRE(start);
  memory.reset();
  unsigned char resident;
  for (const uint64_t offset :
       {uint64_t{0}, uint64_t{64} << 20, uint64_t{128} << 20, kSize - kPage})
    CHECK(::mincore(start + offset, kPage, &resident) == -1);
}

TEST_CASE_METHOD(Guard,
                 "memory that its pod takes away is reported with the port, and reads as 0") {
  const UniqueFd file = memoryFile(4 * kPage);
  const GuestMemory memory(MemoryTable(twoRegions(file)), 7, guard);
  std::byte* second = at(memory.byGuest(), 0x100000, 1);
  *second = std::byte{1};
  REQUIRE(::ftruncate(file.get(), 0) == 0);
  CHECK(*static_cast<volatile std::byte*>(second) == std::byte{0});
  CHECK(failed == 7);
  // Not even if the pod puts it back.
  REQUIRE(::ftruncate(file.get(), 4 * kPage) == 0);
  *second = std::byte{2};
  std::byte stored{};
  REQUIRE(::pread(file.get(), &stored, 1, 2 * kPage + 512) == 1);
  CHECK(stored == std::byte{0});
}

TEST_CASE_METHOD(Guard, "memory that cannot be mapped is an error that leaves nothing behind") {
  const MemoryTable table(twoRegions(memoryFile(4 * kPage)));
  const size_t first = guard.add(1, kPage, kPage);
  guard.remove(first);
  rlimit before{};
  ::getrlimit(RLIMIT_AS, &before);
  const rlimit none{1, before.rlim_max};
  ::setrlimit(RLIMIT_AS, &none);
  CHECK_THROWS_AS(GuestMemory(table, 7, guard), std::system_error);
  ::setrlimit(RLIMIT_AS, &before);
  CHECK(guard.add(1, kPage, kPage) == first);
}
