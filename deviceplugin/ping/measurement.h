// Measures the way to a program that answers (answerer.h): whether frames arrive, how long they
// take there and back, and how many arrive in a second. Polls; for one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "common/mac_address.h"
#include "deviceplugin/guest/guest.h"
#include "deviceplugin/ping/message.h"

namespace vdpa::ping {

struct RoundTrips {
  uint64_t sent = 0, answered = 0;
  double medianUs = 0, p99Us = 0, worstUs = 0;  // of those answered
};

struct Rate {
  uint64_t sent = 0, received = 0;  // frames, once none was on its way any more
  double perSecond = 0;  // received, by the receiver's clock, while the sender was sending
};

class Measurement {
 public:
  using Clock = std::chrono::steady_clock;
  // Asked now and then; true ends what runs.
  using Stop = std::function<bool()>;
  // The receiver's frames per second since the last call, and its count of all.
  using Progress = std::function<void(double perSecond, uint64_t received)>;

  // Borrows the guest, which nobody else may use. `run` is a random number. All methods throw
  // std::runtime_error if the device goes away or breaks virtio's rules.
  Measurement(guest::Guest& guest, MacAddress own, uint64_t run, Stop stop);

  // Asks `peer`, or without one everybody, until someone answers; nothing if nobody does in time.
  std::optional<MacAddress> find(std::optional<MacAddress> peer, Clock::duration timeout);
  // One request at a time. One without an answer within a second is lost; ends early after ten.
  RoundTrips ping(MacAddress peer, uint64_t count);
  // Sends frames of `length` bytes, without the FCS, for `time` or, without it, until stopped: at
  // most `mostPerSecond` or, if that is 0, as fast as the device takes them. Calls `progress`, if
  // there is one, about once a second.
  Rate send(MacAddress peer, uint32_t length, std::optional<Clock::duration> time,
            uint64_t mostPerSecond, const Progress& progress);

  struct Sample {
    uint64_t count = 0, time = 0;  // the receiver's; ns
  };

 private:
  void checkConnected();
  void post(MacAddress to, const Message& message);
  // Hands over what has come of this run.
  template <typename Take>
  void receive(Take&& take);
  // What the receiver has counted so far; nothing if it doesn't say within a second.
  std::optional<Sample> ask(MacAddress peer);
  // The receiver's count when it no longer grows.
  uint64_t settled(MacAddress peer);

  guest::Guest& guest_;
  const MacAddress own_;
  const uint64_t run_;
  const Stop stop_;
};

}  // namespace vdpa::ping
