// The mistakes that a driver can make in a ring. Each ends its session: the ring does not move on.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace vdpa::virtqueue {

// Beside each: the meaning of Fault's `value`; of its `limit`. "-": none.
enum class FaultKind : uint8_t {
  kNone,
  kAvailableIndex,   // buffers that the driver's index makes available; entries of the ring
  kHead,             // index of a chain's first descriptor; entries of the ring
  kNext,             // index of a chain's next descriptor; entries of the table
  kChainLength,      // -; descriptors that one buffer may have
  kBufferLength,     // bytes of one buffer; the most
  kNotReadable,      // address and length of a device-writable descriptor among frames to send
  kNotWritable,      // address and length of a device-readable one among buffers to receive
  kOutside,          // address and length of memory that the driver does not share
  kTooShort,         // bytes of a buffer to receive; bytes of the header
  kIndirect,         // -; an indirect table without VIRTIO_F_INDIRECT_DESC
  kIndirectInTable,  // -; an indirect table in an indirect table
  kIndirectInChain,  // -; an indirect table with more descriptors after it
  kTableSize,        // bytes of an indirect table; of a descriptor
};

struct Fault {
  FaultKind kind = FaultKind::kNone;
  uint16_t entry = 0;  // of the ring, where it was found; of a split ring, in the driver area
  uint64_t value = 0;
  uint64_t limit = 0;

  explicit operator bool() const { return kind != FaultKind::kNone; }
};

// In words, for the log and the port's state. Includes the entry, value and limit.
std::string describe(const Fault& fault);

// A ring or a table of memory that cannot be set up. The text names what and why.
class VirtqueueError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace vdpa::virtqueue
