#include "deviceplugin/datapath/virtqueue/fault.h"

#include <fmt/core.h>

#include <string>

namespace vdpa::virtqueue {
namespace {

std::string what(const Fault& fault) {
  switch (fault.kind) {
    case FaultKind::kNone:
      return "no fault";
    case FaultKind::kAvailableIndex:
      return fmt::format("{} buffers are available in {} entries", fault.value, fault.limit);
    case FaultKind::kHead:
      return fmt::format("descriptor {} is available, of {}", fault.value, fault.limit);
    case FaultKind::kNext:
      return fmt::format("descriptor {} is the next in a chain, of {}", fault.value, fault.limit);
    case FaultKind::kChainLength:
      return fmt::format("a buffer has more than {} descriptors", fault.limit);
    case FaultKind::kBufferLength:
      return fmt::format("a buffer has {} bytes; at most {} are possible", fault.value,
                         fault.limit);
    case FaultKind::kNotReadable:
      return fmt::format("{} bytes at {:#x} are to be sent, but not for the device to read",
                         fault.limit, fault.value);
    case FaultKind::kNotWritable:
      return fmt::format("{} bytes at {:#x} are to receive, but not for the device to write",
                         fault.limit, fault.value);
    case FaultKind::kOutside:
      return fmt::format("{} bytes at {:#x} are not within the shared memory", fault.limit,
                         fault.value);
    case FaultKind::kTooShort:
      return fmt::format("a buffer to receive has {} bytes; the header alone has {}", fault.value,
                         fault.limit);
    case FaultKind::kIndirect:
      return "an indirect table, which was not negotiated";
    case FaultKind::kIndirectInTable:
      return "an indirect table within an indirect table";
    case FaultKind::kIndirectInChain:
      return "an indirect table amid a chain";
    case FaultKind::kTableSize:
      return fmt::format("an indirect table of {} bytes; descriptors have {} each", fault.value,
                         fault.limit);
  }
  return "an unknown fault";
}

}  // namespace

std::string describe(const Fault& fault) {
  return fmt::format("entry {} of the ring: {}", fault.entry, what(fault));
}

}  // namespace vdpa::virtqueue
