// Hostile guests of a switch. None of these attacks breaks the vhost-user protocol; some break the
// rules of virtio, others are merely expensive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "deviceplugin/guest/guest.h"
#include "deviceplugin/guest/shared_memory.h"
#include "tests/bench/ring_generator/frames.h"

namespace vdpa::bench {

using guest::Guest;
using guest::SharedMemory;

enum class Attack {
  kNone,       // they are only connected
  kFlood,      // frames as fast as they go
  kDeaf,       // a flood to a guest whose receive ring stays full
  kBroadcast,  // to everybody
  kUnknown,    // to addresses that nobody has
  kAddresses,  // from ever other addresses
  kKicks,      // no frames, only notifications
  kWatchers,   // a flood to a guest that asks for notifications, whose eventfd is watched by epoll
               // sets: each of the switch's writes wakes them all
  kHoles,      // a flood, while the pages of all their buffers are given back to the system
};

struct AttackOptions {
  Attack kind = Attack::kFlood;
  uint32_t first = 0;  // the first guest's number
  uint32_t frameBytes = 60;
  size_t watchers = 1000000;
  unsigned burst = 32;
};

// All guests but the first send to the first, or as the kind says. Their options make other attacks
// of a flood: frames in very many pieces, or receive buffers of the first that are too short. For
// one thread.
class Attackers {
 public:
  // Borrows the guests and their memory, which nobody else may use if there will be holes in it.
  // Throws std::system_error if this machine does not allow that many watchers.
  Attackers(const std::vector<std::unique_ptr<Guest>>& guests, const SharedMemory& memory,
            const AttackOptions& options);
  ~Attackers();

  void pass();

  uint64_t sent() const;                       // frames
  uint64_t extras() const { return extras_; }  // kicks or holes
  uint64_t ended() const;                      // connections that the other side has ended

 private:
  class Watchers;

  void send(Guest& guest);
  void punch();

  const std::vector<std::unique_ptr<Guest>>& guests_;
  const SharedMemory& memory_;
  const AttackOptions options_;
  const FrameFormat format_;
  std::unique_ptr<Watchers> watchers_;
  uint64_t address_ = 0, extras_ = 0;
  size_t page_ = 0;  // of the memory, punched next
};

}  // namespace vdpa::bench
