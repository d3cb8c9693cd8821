// A vDPA device in software that returns every packet sent on a queue pair, moved by a thread that
// stands for the card.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "tests/system/vdpa_test_driver/ring.h"

namespace vdpa_test {

struct Options {
  uint32_t queuePairs = 1;
  uint64_t failingStarts = 0;  // the device refuses to start this many times
  uint64_t crashAfter = 0;     // the process dies after this many packets
  uint64_t unplugAfter = 0;    // the kernel removes the device
  std::string name;
};

class Device {
 public:
  explicit Device(Options options);
  ~Device();

  const Options& options() const { return options_; }

  // These mirror the operations of a DPDK vDPA driver, and are called on rte_vhost's thread.
  bool start(int vid);
  void stop();
  void setEnabled(uint16_t ring, bool enabled);
  void forgetConnection();  // the next configuration enables its own rings

  // The total packets and bytes that a queue has moved.
  struct Counters {
    uint64_t packets = 0, bytes = 0;
  };
  Counters counters(uint16_t ring);

 private:
  void openRing(uint16_t ring);
  void move();
  bool moveAll();  // returns whether it moved any packet
  bool forward(uint16_t from, uint16_t to);
  void count(uint16_t ring, uint64_t bytes);
  void wait();

  const Options options_;
  const int bell_;  // wakes the thread
  std::mutex mutex_;
  int vid_ = -1;
  Memory memory_;
  std::set<uint16_t> enabled_;
  std::map<uint16_t, std::unique_ptr<Ring>> rings_;
  std::map<uint16_t, Counters> counters_;
  uint64_t starts_ = 0, moved_ = 0;
  std::atomic<bool> running_{false};
  std::thread thread_;
};

}  // namespace vdpa_test
