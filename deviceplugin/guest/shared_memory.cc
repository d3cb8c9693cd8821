#include "deviceplugin/guest/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <stdexcept>

#include "common/errors.h"

namespace vdpa::guest {
namespace {

constexpr size_t kPage = 4096;

}  // namespace

SharedMemory::SharedMemory(size_t bytes)
    : size_((bytes + kPage - 1) / kPage * kPage),
      file_(checked(::memfd_create("guest", MFD_CLOEXEC), "cannot create a memfd")) {
  checked(::ftruncate(file_.get(), static_cast<off_t>(size_)), "cannot size a memfd");
  void* at = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
  if (at == MAP_FAILED) throw systemError(errno, "cannot map {} bytes", size_);
  start_ = static_cast<std::byte*>(at);
}

SharedMemory::~SharedMemory() {
  ::munmap(start_, size_);
}

std::byte* SharedMemory::allocate(size_t bytes, size_t alignment) {
  const size_t at = (used_ + alignment - 1) / alignment * alignment;
  if (at + bytes > size_) throw std::logic_error("the guests' memory is used up");
  used_ = at + bytes;
  return start_ + at;
}

void SharedMemory::populate() const {
  for (size_t at = 0; at < size_; at += kPage)
    *const_cast<volatile std::byte*>(start_ + at) = std::byte{0};
}

void SharedMemory::punch(size_t offset, size_t bytes) const {
  checked(::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(offset), static_cast<off_t>(bytes)),
          "cannot punch a hole");
}

}  // namespace vdpa::guest
