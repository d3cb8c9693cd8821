// The memory that guests share with a back-end: one file, which any number of guests may use.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/unique_fd.h"

namespace vdpa::guest {

// Not thread-safe, but for punch().
class SharedMemory {
 public:
  // `bytes` is an upper limit: a page takes memory once it is touched. Throws std::system_error.
  explicit SharedMemory(size_t bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Zeroed; never freed. Throws std::logic_error once everything is allocated.
  std::byte* allocate(size_t bytes, size_t alignment);

  // Takes the memory that the pages need, so that no other process takes it on its own account.
  void populate() const;

  int fd() const { return file_.get(); }
  std::byte* start() const { return start_; }
  size_t size() const { return size_; }

  // Gives pages back to the system, as a hostile guest may at any time; they read as zeroes
  // afterwards. Offset and size in bytes, multiples of a page.
  void punch(size_t offset, size_t bytes) const;

 private:
  size_t size_;
  size_t used_ = 0;
  UniqueFd file_;
  std::byte* start_;
};

// Guest-physical addresses are those of this process.
inline uint64_t addressOf(const std::byte* at) {
  return reinterpret_cast<uint64_t>(at);
}

}  // namespace vdpa::guest
