// The latest decisions on frames of one source. Most frames have the same addresses as one of the
// few before them, and need no lookup in the MAC table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/virtqueue/frame.h"

namespace vdpa::vswitch {

// The addresses and the VLAN of a frame: 16 bytes, compared as two words.
struct AddressPair {
  uint64_t low = 0, high = 0;

  AddressPair() = default;
  AddressPair(const virtqueue::Frame& frame, uint16_t vlan) {
    std::memcpy(&low, frame.head.data(), sizeof low);
    std::memcpy(&high, frame.head.data() + sizeof low, sizeof high);
    high = (high & 0xffffffff) | uint64_t{vlan} << 32;
  }
  bool operator==(const AddressPair& other) const {
    return ((low ^ other.low) | (high ^ other.high)) == 0;
  }

  bool toGroup() const { return low & 1; }  // multicast and broadcast
  // As packed() for MacAddress.
  uint64_t destination() const { return __builtin_bswap64(low) >> 16; }
  uint64_t source() const { return __builtin_bswap64(low >> 48 | high << 16) >> 16; }
  uint16_t vlan() const { return static_cast<uint16_t>(high >> 32); }
};

// Where a frame goes: a port's number, or one of these.
using Verdict = MacTable::Port;
inline constexpr Verdict kToAll = 0xfffe;
inline constexpr Verdict kNowhere = 0xfffd;  // its destination is on the port that it came from
inline constexpr Verdict kSpoofed = 0xfffc;
inline constexpr Verdict kLastPort = MacTable::kMaxPorts - 1;

class Memo {
 public:
  // Everything is decided again when the table loses an address, when a second has passed (so that
  // the table learns which addresses are still in use), and when a port has changed.
  struct Stamp {
    uint32_t changes = 0, seconds = 0;
    uint64_t generation = 0;
    bool operator==(const Stamp&) const = default;
  };
  void begin(const Stamp& stamp) {
    if (stamp == stamp_) [[likely]]
      return;
    stamp_ = stamp;
    entries_.fill({});
  }

  // Null: there is no entry for this pair.
  const Verdict* find(const AddressPair& pair) const {
    const Entry& entry = entries_[indexOf(pair)];
    return entry.pair == pair ? &entry.verdict : nullptr;
  }
  void note(const AddressPair& pair, Verdict verdict) { entries_[indexOf(pair)] = {pair, verdict}; }

 private:
  static constexpr size_t kEntries = 8;
  struct Entry {
    AddressPair pair;  // all zero at first, as in no valid frame
    Verdict verdict = kNowhere;
  };
  // By the last octets of both addresses.
  static size_t indexOf(const AddressPair& pair) {
    return (pair.low >> 40 ^ pair.high >> 24) % kEntries;
  }

  std::array<Entry, kEntries> entries_;
  Stamp stamp_;
};

}  // namespace vdpa::vswitch
