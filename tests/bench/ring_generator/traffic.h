// Traffic between guests: the frames that they send, how fast, and the count of those that arrive.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "deviceplugin/guest/guest.h"
#include "deviceplugin/guest/histogram.h"
#include "tests/bench/ring_generator/frames.h"

namespace vdpa::bench {

using guest::Guest;
using guest::Histogram;
using guest::Received;

enum class Pattern {
  kOne,        // the first of each pair of guests to the second
  kBoth,       // and back
  kScattered,  // the first guest, each frame to another one
  kAll,        // each guest does so
  kToOne,      // all others to the first
  kBroadcast,  // the first guest to everybody
};

struct TrafficOptions {
  Pattern pattern = Pattern::kOne;
  uint32_t first = 0;   // the first guest's number, by which its address is
  double rate = 0;      // frames per second of all senders together; 0: as many as the rings take
  unsigned burst = 32;  // frames that a sender offers at once
  unsigned flows = 1;   // different source ports, in turn
  bool check = false;   // the content of each frame
};

// All of one stretch of time.
struct TrafficResult {
  double seconds = 0;
  uint64_t sent = 0, received = 0;
  uint64_t receivedBytes = 0;  // of these frames
  uint64_t misdelivered = 0;   // not in `received`: for another guest, or from none of these
  // With check: too short or too long, other bytes, or not after the sender's previous frame.
  uint64_t damaged = 0, disordered = 0;
  double busy = 0;  // the share of the time in which frames were moved
};

// Guests first, first + 1, ... in one thread, the senders' clock being the receivers'.
class Traffic {
 public:
  // Prepares all buffers. Borrows the guests.
  Traffic(const std::vector<std::unique_ptr<Guest>>& guests, const FrameFormat& format,
          const TrafficOptions& options);

  // Has each guest send to its neighbour until frames arrive, so that a switch learns where they
  // are. Throws std::runtime_error if none come within 20 seconds.
  void learn();
  // Calls `between` after each pass, for what others do in this thread.
  TrafficResult run(double seconds, const std::function<void()>& between = {});
  // Receives what is on its way: until nothing has come for `quiet` seconds, at most two.
  void drain(TrafficResult& result, double quiet, const std::function<void()>& between = {});

  // At a given rate: cycles from sending to receipt, of all frames since the last reset().
  const Histogram& latencies() const { return latencies_; }
  void reset() { latencies_.clear(); }
  double frequency() const { return frequency_; }

 private:
  struct Sender {
    Guest* guest;
    uint32_t number;
    uint32_t to;                   // if it has one destination
    std::vector<uint32_t> others;  // if it has several
    size_t next = 0;
    uint64_t sequence = 0;
    unsigned flow = 0;
  };

  void setSenders();
  size_t send(Sender& sender, size_t count);
  size_t receive(TrafficResult& result);
  void check(uint32_t receiver, const Received& frame, TrafficResult& result);

  const std::vector<std::unique_ptr<Guest>>& guests_;
  const FrameFormat format_;
  const TrafficOptions options_;
  const double frequency_;
  std::vector<Sender> senders_;
  size_t turn_ = 0;  // of the senders, at a given rate
  size_t nextReceiver_ = 0;
  std::vector<std::vector<uint64_t>> expected_;  // by receiver and sender: the least next sequence
  Histogram latencies_;
};

}  // namespace vdpa::bench
