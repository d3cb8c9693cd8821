// When to register a resource with the kubelet: the decisions alone, without I/O and with the
// caller's clock.
//
// The kubelet forgets a plugin when it restarts (it then deletes every socket in its directory) and
// when the plugin's ListAndWatch stream ends; and it leaks the old stream of a plugin that
// registers while that lives. So: register when the kubelet's socket is there, ours is listening
// and no stream lives; again after each of those events; with back-off after a failure. Streams
// that end at once, one after the other, are failures too, but for the first few: older kubelets
// end a new stream with the old one.
#pragma once

#include <chrono>
#include <optional>

namespace vdpa::plugin {

class RegistrationSchedule {
 public:
  using Time = std::chrono::steady_clock::time_point;

  static constexpr std::chrono::milliseconds kFirstRetry{50};
  static constexpr std::chrono::milliseconds kMaxRetry{5000};
  // After a registration the kubelet's stream follows within milliseconds; one that doesn't come is
  // a failure.
  static constexpr std::chrono::milliseconds kStreamDeadline{2000};

  // A stream that ends sooner is a brief one, and so many of them in a row are no failure.
  static constexpr std::chrono::milliseconds kBriefStream{1000};
  static constexpr unsigned kBriefStreams = 3;

  // --- events
  // Its socket was created: a new kubelet. `ourSocketStayed`: the one named last; a kubelet deletes
  // it before it listens, so that one which stayed was named to this very kubelet.
  void kubeletAppeared(Time now, bool ourSocketStayed);
  void kubeletVanished();
  void attempted();  // a Register call is under way
  void succeeded(Time now);
  void failed(Time now);
  void streamStarted(Time now);
  void streamEnded(Time now);
  void streamsGivenUp();     // those in the way: the next attempt ends them
  void restarted(Time now);  // our own socket is a new one; streams of the old don't count

  // --- decisions
  // When the next attempt is due; nothing while none is.
  std::optional<Time> due() const;
  bool registered() const { return registered_; }
  // Streams live that must be ended before the next attempt.
  bool streamsInTheWay() const { return !registered_ && streams_ > 0; }

 private:
  void expect(Time now);
  void backOff(Time now);

  bool kubeletThere_ = false;
  bool inFlight_ = false;
  bool endedInFlight_ = false;  // a stream, since the Register under way began
  bool registered_ = false;
  unsigned streams_ = 0;
  unsigned briefStreams_ = 0;  // in a row
  Time streamStart_{};         // of the latest
  std::chrono::milliseconds retry_ = kFirstRetry;
  Time due_{};
};

}  // namespace vdpa::plugin
