// When to register a resource with the kubelet: only the decisions, without I/O and with the
// caller's clock.
//
// The kubelet forgets a plugin when it restarts (it then deletes every socket in its directory) and
// when the plugin's ListAndWatch stream ends; and it leaks the stream of a plugin that registers
// again while that stream lives. So: register when the kubelet's socket exists, ours is listening
// and no stream lives; again after each of those events; with back-off after a failure. Brief
// streams in a row are failures too, except for the first few: older kubelets end a new stream with
// the old one.
#pragma once

#include <chrono>
#include <optional>

namespace vdpa::plugin {

class RegistrationSchedule {
 public:
  using Time = std::chrono::steady_clock::time_point;

  static constexpr std::chrono::milliseconds kFirstRetry{50};
  static constexpr std::chrono::milliseconds kMaxRetry{5000};
  // The kubelet opens its stream within milliseconds of a registration; otherwise it has failed.
  static constexpr std::chrono::milliseconds kStreamDeadline{2000};

  // A stream that ends sooner is brief; up to kBriefStreams of them in a row are no failure.
  static constexpr std::chrono::milliseconds kBriefStream{1000};
  static constexpr unsigned kBriefStreams = 3;

  // --- events
  // The kubelet's socket was created. `ourSocketStayed`: our latest registered socket still exists;
  // a starting kubelet deletes all sockets before it listens, so ours was registered with this one.
  void kubeletAppeared(Time now, bool ourSocketStayed);
  void kubeletVanished();
  void attempted();  // a Register call is under way
  void succeeded(Time now);
  void failed(Time now);
  void streamStarted(Time now);
  void streamEnded(Time now);
  void streamsGivenUp();     // the next attempt ends those in the way
  void restarted(Time now);  // our own socket is new; streams of the old one don't count

  // --- decisions
  // When the next attempt is due; nothing if none is.
  std::optional<Time> due() const;
  bool registered() const { return registered_; }
  // Whether live streams must be ended before the next attempt.
  bool streamsInTheWay() const { return !registered_ && streams_ > 0; }

 private:
  void expect(Time now);
  void backOff(Time now);

  bool kubeletThere_ = false;
  bool inFlight_ = false;
  bool endedInFlight_ = false;  // a stream ended since the pending Register began
  bool registered_ = false;
  unsigned streams_ = 0;
  unsigned briefStreams_ = 0;  // in a row
  Time streamStart_{};         // of the latest stream
  std::chrono::milliseconds retry_ = kFirstRetry;
  Time due_{};
};

}  // namespace vdpa::plugin
