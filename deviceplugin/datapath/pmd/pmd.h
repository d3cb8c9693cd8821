// The wiring of one vdpa-pmd, and its control operations: hello, stats and stop. Its status is an
// event whenever it changes.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "common/control_channel.h"
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

  control::Answer answer(const control::Request& request);
  control::PmdStatus status() const;
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
  control::PmdStatus published_;
  std::chrono::milliseconds pause_ = kFirstPause;
  std::optional<Clock::time_point> closedUntil_;
  bool stop_ = false;
};

}  // namespace vdpa::pmd
