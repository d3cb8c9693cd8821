#include "deviceplugin/datapath/worker/engines/control_queue.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/errors.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_device.h"

namespace vdpa::worker {

namespace flag = virtqueue::flag;
namespace split = virtqueue::split;

namespace {

constexpr uint32_t kEntries = 8;  // three are in use at a time
constexpr auto kTimeout = std::chrono::milliseconds(500);

// Offsets in the page.
constexpr uint64_t kDescriptors = 0;
constexpr uint64_t kAvailable = 256;  // packed: the driver's event suppression
constexpr uint64_t kUsed = 512;       // packed: the device's event suppression
constexpr uint64_t kCommand = 1024;
constexpr uint64_t kData = 1088;
constexpr uint64_t kAnswer = 1152;

constexpr uint8_t kClassMq = 4, kVqPairsSet = 0, kOk = 0, kNoAnswer = 0xff;

// For memory that the device reads or writes at the same time.
uint16_t load(const std::byte* at) {
  uint16_t value;
  __atomic_load(reinterpret_cast<const uint16_t*>(at), &value, __ATOMIC_ACQUIRE);
  return value;
}
void store(std::byte* at, uint16_t value) {
  __atomic_store(reinterpret_cast<uint16_t*>(at), &value, __ATOMIC_RELEASE);
}

}  // namespace

ControlQueue::ControlQueue(uint32_t index, uint64_t iova, bool packed)
    : index_(index),
      iova_(iova),
      packed_(packed),
      kick_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "cannot create an eventfd")),
      call_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "cannot create an eventfd")) {
  void* memory =
      ::mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw systemError(errno, "cannot map memory for a control queue");
  memory_ = static_cast<std::byte*>(memory);
}

ControlQueue::~ControlQueue() {
  ::munmap(memory_, kMemory);
}

VhostVdpaDevice::Queue ControlQueue::queue() const {
  return {index_,
          kEntries,
          packed_ ? 0x80008000u : 0u,  // both wrap counters start at 1
          iova_ + kDescriptors,
          iova_ + kAvailable,
          iova_ + kUsed,
          kick_.get(),
          call_.get()};
}

void ControlQueue::usePairs(uint16_t pairs) {
  const uint8_t command[2] = {kClassMq, kVqPairsSet};
  std::memcpy(memory_ + kCommand, command, sizeof command);
  std::memcpy(memory_ + kData, &pairs, sizeof pairs);
  memory_[kAnswer] = std::byte{kNoAnswer};

  // The device reads command and data, and writes the answer.
  const uint64_t addresses[3] = {iova_ + kCommand, iova_ + kData, iova_ + kAnswer};
  const uint32_t lengths[3] = {sizeof command, sizeof pairs, 1};
  if (packed_) {
    auto* ring = reinterpret_cast<virtqueue::PackedDescriptor*>(memory_ + kDescriptors);
    const uint16_t first = next_;
    uint16_t firstFlags = 0;
    last_ = first;  // the device marks a chain as used in its first entry
    lastWrap_ = wrap_;
    for (int i = 0; i < 3; ++i) {
      const auto flags = static_cast<uint16_t>((i < 2 ? flag::kNext : flag::kWrite) |
                                               (wrap_ ? flag::kAvailable : flag::kUsed));
      ring[next_].address = addresses[i];
      ring[next_].length = lengths[i];
      ring[next_].id = first;
      if (i == 0)
        firstFlags = flags;  // written last: it makes the chain visible
      else
        ring[next_].flags = flags;
      if (++next_ == kEntries) {
        next_ = 0;
        wrap_ = !wrap_;
      }
    }
    store(reinterpret_cast<std::byte*>(&ring[first].flags), firstFlags);
  } else {
    auto* ring = reinterpret_cast<virtqueue::Descriptor*>(memory_ + kDescriptors);
    for (uint16_t i = 0; i < 3; ++i)
      ring[i] = {addresses[i], lengths[i], i < 2 ? flag::kNext : flag::kWrite,
                 static_cast<uint16_t>(i < 2 ? i + 1 : 0)};
    store(memory_ + kAvailable + split::kRing + split::kAvailableElement * (next_ % kEntries), 0);
    store(memory_ + kAvailable + split::kIndex, ++next_);
    ++used_;
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  ::eventfd_write(kick_.get(), 1);

  const auto deadline = std::chrono::steady_clock::now() + kTimeout;
  while (!answered()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      throw systemError(ETIMEDOUT, "the device does not answer on its control queue");
    pollfd answer{call_.get(), POLLIN, 0};
    ::poll(&answer, 1, static_cast<int>(std::min<int64_t>(left.count(), 5)));
    eventfd_t ignored;
    ::eventfd_read(call_.get(), &ignored);
  }
  if (memory_[kAnswer] != std::byte{kOk})
    throw systemError(EIO, "the device refuses to use {} queue pairs", pairs);
}

bool ControlQueue::answered() const {
  if (!packed_) return load(memory_ + kUsed + split::kIndex) == used_;
  const auto* ring = reinterpret_cast<const virtqueue::PackedDescriptor*>(memory_ + kDescriptors);
  const uint16_t flags = load(reinterpret_cast<const std::byte*>(&ring[last_].flags));
  const bool available = flags & flag::kAvailable, used = flags & flag::kUsed;
  return available == used && used == lastWrap_;
}

}  // namespace vdpa::worker
