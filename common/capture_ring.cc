#include "common/capture_ring.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {
namespace {

constexpr size_t kRingBytes = sizeof(CapturePositions) + kCaptureRing;
constexpr size_t kMappedBytes = kRingBytes + kCaptureRing;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

void mapAt(std::byte* at, size_t bytes, int fd, size_t offset) {
  // Populated: a poller's write must not wait for the kernel.
  if (::mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd,
             static_cast<off_t>(offset)) == MAP_FAILED)
    throw systemError(errno, "cannot map {} bytes of a capture's memory", bytes);
}

}  // namespace

UniqueFd CaptureMemory::make(unsigned rings) {
  UniqueFd fd(checked(::memfd_create("vdpa-capture", MFD_CLOEXEC | MFD_ALLOW_SEALING),
                      "cannot make memory for a capture"));
  const auto size = static_cast<off_t>(rings * kRingBytes);
  checked(::ftruncate(fd.get(), size), "cannot make {} bytes of memory for a capture", size);
  if (const int error = ::posix_fallocate(fd.get(), 0, size))
    throw systemError(error, "cannot allocate {} bytes of memory for a capture", size);
  checked(::fcntl(fd.get(), F_ADD_SEALS, kSeals), "cannot seal the memory of a capture");
  return fd;
}

void CaptureMemory::check(int fd, unsigned rings) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
    throw std::runtime_error("the memory of the capture is not sealed (F_SEAL_SHRINK)");
  struct stat status {};
  checked(::fstat(fd, &status), "cannot examine the memory of the capture");
  if (static_cast<uint64_t>(status.st_size) != rings * kRingBytes)
    throw std::runtime_error(
        fmt::format("the memory of the capture has {} bytes; {} polling threads need {}",
                    status.st_size, rings, rings * kRingBytes));
}

CaptureMemory::CaptureMemory(int fd, unsigned ring) {
  void* place = ::mmap(nullptr, kMappedBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) throw systemError(errno, "cannot map the memory of a capture");
  base_ = static_cast<std::byte*>(place);
  try {
    const size_t offset = ring * kRingBytes;
    mapAt(base_, kRingBytes, fd, offset);
    mapAt(base_ + kRingBytes, kCaptureRing, fd, offset + sizeof(CapturePositions));
  } catch (...) {
    ::munmap(place, kMappedBytes);
    throw;
  }
}

CaptureMemory::~CaptureMemory() {
  ::munmap(base_, kMappedBytes);
}

const CaptureRecord* CaptureReader::peek() {
  if (peeked_) return &record_;
  if (position_ == written_) written_ = memory_.positions().written.load(std::memory_order_acquire);
  const uint64_t bytes = written_ - position_;
  if (bytes == 0) return nullptr;
  if (bytes > kCaptureRing || bytes < sizeof record_)
    throw std::runtime_error(
        fmt::format("the switch claims {} bytes in a capture's ring of {}", bytes, kCaptureRing));
  std::memcpy(&record_, at(), sizeof record_);
  asm volatile("" : : "r"(&record_) : "memory");  // the compiler must not read it again there
  if (record_.captured > kMaxSnapLength || record_.captured > record_.length ||
      captureSize(record_.captured) > bytes)
    throw std::runtime_error(
        fmt::format("the switch claims {} of {} bytes of a frame, in {} bytes of a capture's ring",
                    record_.captured, record_.length, bytes));
  peeked_ = true;
  return &record_;
}

}  // namespace vdpa
