// The vhost-user wire format, as far as this back-end and its engine link speak it. Source:
// "Vhost-user Protocol" in QEMU's documentation (docs/interop/vhost-user.rst) and virtio 1.2 for
// feature bits. All fields are in host byte order: both sides run on one machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace vdpa::vhost_user {

enum class Request : uint32_t {
  GetFeatures = 1,
  SetFeatures = 2,
  SetOwner = 3,
  ResetOwner = 4,
  SetMemTable = 5,
  SetVringNum = 8,
  SetVringAddr = 9,
  SetVringBase = 10,
  GetVringBase = 11,
  SetVringKick = 12,
  SetVringCall = 13,
  SetVringErr = 14,
  GetProtocolFeatures = 15,
  SetProtocolFeatures = 16,
  GetQueueNum = 17,
  SetVringEnable = 18,
  NetSetMtu = 20,
  SetBackendReqFd = 21,
  GetConfig = 24,
  SetConfig = 25,
  ResetDevice = 34,
  SetStatus = 39,
  GetStatus = 40,
};

// "SET_MEM_TABLE", or "request 99" for an unknown number.
std::string nameOf(Request request);

struct MessageHeader {
  uint32_t request;
  uint32_t flags;
  uint32_t size;  // of the payload that follows, in bytes
};
static_assert(sizeof(MessageHeader) == 12);

// MessageHeader::flags
inline constexpr uint32_t kVersionMask = 0x3;
inline constexpr uint32_t kVersion = 0x1;
inline constexpr uint32_t kReplyFlag = 0x4;
inline constexpr uint32_t kNeedReplyFlag = 0x8;

// The most that can be attached to one message: one descriptor for each memory region.
inline constexpr size_t kMaxMemoryRegions = 8;
inline constexpr size_t kMaxDescriptors = kMaxMemoryRegions;

// SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE
struct VringState {
  uint32_t index;
  uint32_t value;
};

// SET_VRING_ADDR. Addresses are the front-end's own (userspace_addr of a region). In a packed ring
// `available` is the driver's and `used` the device's event suppression structure.
struct VringAddresses {
  uint32_t index;
  uint32_t flags;
  uint64_t descriptors;
  uint64_t used;
  uint64_t available;
  uint64_t log;
};
static_assert(sizeof(VringAddresses) == 40);

// SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR carry a u64: ring index and "no descriptor".
inline constexpr uint64_t kVringIndexMask = 0xff;
inline constexpr uint64_t kVringNoDescriptor = 0x100;

struct WireRegion {
  uint64_t guestAddress;
  uint64_t size;
  uint64_t userAddress;
  uint64_t fileOffset;
};

struct WireMemoryTable {
  uint32_t regionCount;
  uint32_t padding;
  WireRegion regions[kMaxMemoryRegions];  // only the first regionCount are sent
};
static_assert(sizeof(WireMemoryTable) == 8 + kMaxMemoryRegions * 32);

// GET_CONFIG and SET_CONFIG: this header and `size` bytes of the device's configuration space.
struct ConfigHeader {
  uint32_t offset;
  uint32_t size;
  uint32_t flags;
};
inline constexpr uint32_t kMaxConfigSize = 256;

// The one request that this back-end sends, on the socket of SET_BACKEND_REQ_FD: the configuration
// space has changed. Without payload; only if CONFIG was negotiated.
inline constexpr uint32_t kBackendConfigChange = 2;

// The longest payload any of the requests above has.
inline constexpr uint32_t kMaxPayload = sizeof(ConfigHeader) + kMaxConfigSize;
static_assert(kMaxPayload >= sizeof(WireMemoryTable));

constexpr uint64_t bit(unsigned number) {
  return uint64_t{1} << number;
}

// Device features (virtio 1.2, 5.1.3 and 6; vhost-user's own is PROTOCOL_FEATURES).
namespace feature {
inline constexpr uint64_t kChecksum = bit(0);
inline constexpr uint64_t kGuestChecksum = bit(1);
inline constexpr uint64_t kMtu = bit(3);
inline constexpr uint64_t kMac = bit(5);
inline constexpr uint64_t kGuestTso4 = bit(7);
inline constexpr uint64_t kGuestTso6 = bit(8);
inline constexpr uint64_t kGuestEcn = bit(9);
inline constexpr uint64_t kGuestUfo = bit(10);
inline constexpr uint64_t kHostTso4 = bit(11);
inline constexpr uint64_t kHostTso6 = bit(12);
inline constexpr uint64_t kHostEcn = bit(13);
inline constexpr uint64_t kHostUfo = bit(14);
inline constexpr uint64_t kMergeableBuffers = bit(15);
inline constexpr uint64_t kLinkStatus = bit(16);  // VIRTIO_NET_F_STATUS
inline constexpr uint64_t kControlQueue = bit(17);
inline constexpr uint64_t kControlReceive = bit(18);
inline constexpr uint64_t kGuestAnnounce = bit(21);
inline constexpr uint64_t kMultiqueue = bit(22);
inline constexpr uint64_t kAnyLayout = bit(27);
inline constexpr uint64_t kIndirectDescriptors = bit(28);
inline constexpr uint64_t kEventIndex = bit(29);
inline constexpr uint64_t kProtocolFeatures = bit(30);
inline constexpr uint64_t kVersion1 = bit(32);
inline constexpr uint64_t kPackedRing = bit(34);
inline constexpr uint64_t kInOrder = bit(35);
inline constexpr uint64_t kGuestUso4 = bit(54);
inline constexpr uint64_t kGuestUso6 = bit(55);
inline constexpr uint64_t kHostUso = bit(56);
}  // namespace feature

namespace protocol_feature {
inline constexpr uint64_t kMultiqueue = bit(0);
inline constexpr uint64_t kReplyAck = bit(3);
inline constexpr uint64_t kMtu = bit(4);
inline constexpr uint64_t kBackendRequests = bit(5);
inline constexpr uint64_t kConfig = bit(9);
inline constexpr uint64_t kResetDevice = bit(13);
inline constexpr uint64_t kStatus = bit(16);
}  // namespace protocol_feature

inline constexpr uint8_t kStatusDriverOk = 4;

// virtio 1.2, 2.7 and 2.8: the largest ring.
inline constexpr uint32_t kMaxQueueSize = 32768;

}  // namespace vdpa::vhost_user
