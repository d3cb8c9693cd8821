// The wiring of one vdpa-pmd, and its control operations:
//   hello  {program, version, pid, device, driver, socket, queue_pairs, features, and the state}
//   stats  {queues: [{queue, <counter>: <value>, ...}]}
//   stop   {}
// State, in "hello" and as the event "state" whenever it changes: `ready`, the socket accepts the
// worker; `connected`, the device serves the worker's queues; `reason`, why not, if something
// failed.
#pragma once

#include <chrono>
#include <optional>

#include "common/control_channel.h"
#include "common/json.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/pmd/dpdk_log.h"
#include "deviceplugin/datapath/pmd/eal.h"
#include "deviceplugin/datapath/pmd/options.h"
#include "deviceplugin/datapath/pmd/vdpa_device.h"
#include "deviceplugin/datapath/pmd/vhost_session.h"

namespace vdpa::pmd {

class Pmd {
 public:
  // Throws std::runtime_error if the device is not available.
  explicit Pmd(PmdOptions options);

  // Runs until "stop", SIGTERM or SIGINT. Throws std::runtime_error if the device is removed.
  void run();

 private:
  using Clock = std::chrono::steady_clock;
  // A worker whose memory or rings the driver refuses reconnects at once: it has to wait, twice as
  // long each time, but never so long that the next pod would notice.
  static constexpr std::chrono::milliseconds kFirstPause{200}, kMaxPause{3200};

  nlohmann::json handle(const std::string& operation);
  nlohmann::json state() const;
  void follow(const VhostSession::State& session);
  void openAgain();
  [[noreturn]] void giveBack();
  void publish();
  int untilOpening() const;

  const PmdOptions options_;
  UniqueFd signals_;
  UniqueFd removed_;  // readable once the device has to be released
  DpdkLog log_;
  Eal eal_;
  VdpaDevice device_;
  VhostSession session_;  // ends before the device does
  ControlServer control_;
  bool connected_ = false;
  std::string reason_;
  nlohmann::json published_;
  std::chrono::milliseconds pause_ = kFirstPause;
  std::optional<Clock::time_point> closedUntil_;
  bool stop_ = false;
};

}  // namespace vdpa::pmd
