// The ring between a poller and vdpactl: what comes out, what does not fit, and what neither side
// believes of the other.
#include "common/capture_ring.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>

#include "common/unique_fd.h"

using namespace vdpa;

namespace {

bool write(CaptureWriter& writer, uint64_t time, const std::string& bytes) {
  const auto length = static_cast<uint32_t>(bytes.size());
  std::byte* at = writer.reserve(length);
  if (!at) return false;
  const CaptureRecord record{time, length, length};
  std::memcpy(at, &record, sizeof record);
  std::memcpy(at + sizeof record, bytes.data(), bytes.size());
  writer.publish();
  return true;
}

std::string textOf(CaptureReader& reader) {
  const CaptureRecord* record = reader.peek();
  if (!record) return "";
  return {reinterpret_cast<const char*>(reader.bytes()), record->captured};
}

struct Sides {
  UniqueFd memory = CaptureMemory::make(2);
  CaptureWriter writer{memory.get(), 1};
  CaptureReader reader{memory.get(), 1};
  CaptureMemory raw{memory.get(), 1};
};

}  // namespace

TEST_CASE_METHOD(Sides, "records come out as they went in") {
  CHECK_FALSE(reader.peek());
  const std::string sizes[] = {"",
                               "x",
                               std::string(39, 'a'),
                               std::string(40, 'b'),
                               std::string(41, 'c'),
                               std::string(kMaxSnapLength, 'd')};
  uint64_t time = 0;
  for (const auto& bytes : sizes) REQUIRE(write(writer, ++time, bytes));
  time = 0;
  for (const auto& bytes : sizes) {
    REQUIRE(reader.peek());
    CHECK(reader.peek()->time == ++time);
    CHECK(textOf(reader) == bytes);
    reader.next();
  }
  CHECK_FALSE(reader.peek());
}

TEST_CASE_METHOD(Sides, "what is reserved is not seen before it is published") {
  REQUIRE(writer.reserve(10));
  CHECK_FALSE(reader.peek());
  writer.publish();
  CHECK(reader.peek());
}

TEST_CASE_METHOD(Sides, "a full ring takes nothing, counts it, and goes on when there is room") {
  const std::string bytes(1000, 'x');
  const uint64_t most = kCaptureRing / captureSize(1000);
  for (uint64_t i = 0; i < most; ++i) REQUIRE(write(writer, i, bytes));
  CHECK(reader.dropped() == 0);
  CHECK_FALSE(write(writer, 0, bytes));
  CHECK_FALSE(write(writer, 0, bytes));
  CHECK(reader.dropped() == 2);
  REQUIRE(reader.peek());
  reader.next();
  CHECK_FALSE(write(writer, 0, bytes));
  reader.release();
  CHECK(write(writer, most, bytes));
  CHECK(reader.dropped() == 3);
  for (uint64_t i = 1; i <= most; ++i) {
    REQUIRE(reader.peek());
    CHECK(reader.peek()->time == i);
    reader.next();
  }
}

TEST_CASE_METHOD(Sides, "records are in one piece across the end of the ring") {
  for (uint64_t i = 0; i < 3 * kCaptureRing / 50000; ++i) {
    const std::string bytes(50000 + i % 3 * 100, static_cast<char>('a' + i % 26));
    REQUIRE(write(writer, i, bytes));
    REQUIRE(textOf(reader) == bytes);
    reader.next();
    reader.release();
  }
}

TEST_CASE_METHOD(Sides, "rings of one memory have nothing in common") {
  CaptureReader other(memory.get(), 0);
  REQUIRE(write(writer, 1, "x"));
  CHECK_FALSE(other.peek());
}

TEST_CASE_METHOD(Sides, "a reader does not believe the positions") {
  const uint64_t written = GENERATE(uint64_t{1}, uint64_t{23}, kCaptureRing + 64, ~uint64_t{63});
  raw.positions().written = written;
  CHECK_THROWS_WITH(reader.peek(), Catch::Contains("claims " + std::to_string(written)));
}

TEST_CASE_METHOD(Sides, "a reader does not believe the records") {
  const auto put = [&](CaptureRecord record) {
    std::memcpy(raw.data(), &record, sizeof record);
    raw.positions().written = 128;
  };
  SECTION("more than was written") {
    put({0, 1000, 105});
  }
  SECTION("more than the frame has") {
    put({0, 40, 41});
  }
  SECTION("more than anybody asks for") {
    put({0, UINT32_MAX, UINT32_MAX});
  }
  CHECK_THROWS_WITH(reader.peek(), Catch::Contains("of a frame"));
}

TEST_CASE_METHOD(Sides, "a record that changes after it was checked is the one that was checked") {
  REQUIRE(write(writer, 1, "abc"));
  REQUIRE(reader.peek());
  const CaptureRecord other{2, 1 << 30, 1 << 30};
  std::memcpy(raw.data(), &other, sizeof other);
  CHECK(reader.peek()->captured == 3);
  reader.next();
  CHECK_FALSE(reader.peek());
}

TEST_CASE_METHOD(Sides, "a writer stays in the ring whatever its reader's position") {
  raw.positions().read = GENERATE(uint64_t{1}, uint64_t{1} << 40, ~uint64_t{0});
  const std::string bytes(60000, 'x');
  for (int i = 0; i < 1000; ++i) write(writer, 0, bytes);  // ASan and the kernel would object
  SUCCEED();
}

TEST_CASE("memory that is of another size, or could shrink, is refused") {
  CHECK_NOTHROW(CaptureMemory::check(CaptureMemory::make(3).get(), 3));
  CHECK_THROWS_WITH(CaptureMemory::check(CaptureMemory::make(3).get(), 4),
                    Catch::Contains("4 polling threads need"));
  const UniqueFd open(::memfd_create("test", MFD_ALLOW_SEALING));
  CHECK_THROWS_WITH(CaptureMemory::check(open.get(), 1), Catch::Contains("not sealed"));
  const UniqueFd file(::open("/dev/null", O_RDWR));
  CHECK_THROWS_WITH(CaptureMemory::check(file.get(), 1), Catch::Contains("not sealed"));
  CHECK(::ftruncate(CaptureMemory::make(1).get(), 0) < 0);
}

TEST_CASE_METHOD(Sides, "two threads") {
  constexpr uint64_t kRecords = 200000;
  std::atomic<uint64_t> lost = 0;
  std::thread poller([&] {
    for (uint64_t i = 1; i <= kRecords; ++i)
      if (!write(writer, i, std::string(i % 200, static_cast<char>(i)))) ++lost;
  });
  uint64_t seen = 0, last = 0;
  bool right = true;
  while (last < kRecords && seen + lost < kRecords) {
    const CaptureRecord* record = reader.peek();
    if (!record) {
      reader.release();
      std::this_thread::yield();
      continue;
    }
    right &= record->time > last && record->captured == record->time % 200 &&
             textOf(reader) == std::string(record->captured, static_cast<char>(record->time));
    last = record->time;
    ++seen;
    reader.next();
  }
  poller.join();
  CHECK(right);
  CHECK(seen > 0);
  CHECK(reader.dropped() == lost);
}
