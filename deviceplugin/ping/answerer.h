// Answers vdpa-ping's requests and counts its data. Sleeps while no frames come.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>

#include "common/mac_address.h"
#include "deviceplugin/guest/guest.h"
#include "deviceplugin/ping/message.h"

namespace vdpa::ping {

class Answerer {
 public:
  using Clock = std::chrono::steady_clock;
  // Frames of data in all so far, and in the time since the last call.
  using Report = std::function<void(uint64_t total, uint64_t frames, Clock::duration time)>;

  // Borrows the guest, which nobody else may use.
  Answerer(guest::Guest& guest, MacAddress own);

  // Runs until `stop` is readable. Calls `report` about once a second while data comes. Throws
  // std::runtime_error if the device goes away or breaks virtio's rules.
  void run(int stop, const Report& report);

 private:
  size_t receive();
  void take(const ReceivedMessage& frame);
  void answer(MacAddress to, const Message& message);
  // Until frames come, `stop` is readable, or the next report is due; whether to go on.
  bool sleep(int stop);

  guest::Guest& guest_;
  const MacAddress own_;
  std::map<uint64_t, uint64_t> counts_;  // of data, by run
  uint64_t* count_ = nullptr;            // of countedRun_
  uint64_t countedRun_ = 0, total_ = 0;
};

}  // namespace vdpa::ping
