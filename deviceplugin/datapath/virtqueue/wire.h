// The layout of the memory that driver and device share: the two ring formats of virtio 1.2, 2.7
// (split) and 2.8 (packed). Everything is little-endian (1.4), as is every machine this is built
// for, so fields are loaded and stored as they are.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace vdpa::virtqueue {

static_assert(std::endian::native == std::endian::little);

inline constexpr uint32_t kMaxRingSize = 32768;  // entries of either format (2.7, 2.8)

// A descriptor of a split ring or of its indirect tables (2.7.5).
struct Descriptor {
  uint64_t address;  // guest-physical, or an I/O virtual address
  uint32_t length;   // bytes
  uint16_t flags;
  uint16_t next;  // index in the same table, with kNext
};
static_assert(sizeof(Descriptor) == 16);

// A descriptor of a packed ring (2.8.13).
struct PackedDescriptor {
  uint64_t address;
  uint32_t length;
  uint16_t id;  // of a chain: in its last descriptor (2.8.6)
  uint16_t flags;
};
static_assert(sizeof(PackedDescriptor) == 16);

inline constexpr size_t kDescriptorSize = 16;

namespace flag {
inline constexpr uint16_t kNext = 1;            // 2.7.5, 2.8.6
inline constexpr uint16_t kWrite = 2;           // the device writes, else it reads: 2.7.5, 2.8.3
inline constexpr uint16_t kIndirect = 4;        // a table of descriptors: 2.7.5.3, 2.8.7
inline constexpr uint16_t kAvailable = 1 << 7;  // packed rings: 2.8.1
inline constexpr uint16_t kUsed = 1 << 15;
}  // namespace flag

// The driver area of a split ring, the "available ring" (2.7.6), and its device area, the "used
// ring" (2.7.8): flags, index, then an element for each entry of the ring, then the other side's
// event index. Offsets in bytes.
namespace split {
inline constexpr size_t kFlags = 0;
inline constexpr size_t kIndex = 2;
inline constexpr size_t kRing = 4;
inline constexpr size_t kAvailableElement = 2;  // bytes: the index of a chain's first descriptor
inline constexpr size_t kUsedElement = 8;       // bytes: le32 id, le32 length
inline constexpr size_t kEventIndex = 2;        // bytes
inline constexpr uint16_t kNoInterrupt = 1;     // in the driver area's flags (2.7.6)
inline constexpr uint16_t kNoNotify = 1;        // in the device area's flags (2.7.8)
}  // namespace split

// Driver and device area of a packed ring: one event suppression structure each (2.8.14), le16
// offset and wrap counter, le16 flags; here as the 32 bits that it is.
namespace packed {
inline constexpr size_t kEventSize = 4;
inline constexpr uint32_t kFlagsShift = 16;
inline constexpr uint32_t kFlagsMask = 3;
inline constexpr uint32_t kEnable = 0;  // 2.8.10
inline constexpr uint32_t kDisable = 1;
inline constexpr uint32_t kDescriptor = 2;  // only for the descriptor that offset and wrap name
inline constexpr uint32_t kOffsetMask = 0x7fff;
inline constexpr uint32_t kWrap = 1 << 15;
}  // namespace packed

}  // namespace vdpa::virtqueue
