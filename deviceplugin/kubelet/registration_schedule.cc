#include "deviceplugin/kubelet/registration_schedule.h"

#include <algorithm>
#include <optional>

namespace vdpa::plugin {

void RegistrationSchedule::expect(Time now) {
  registered_ = false;
  retry_ = kFirstRetry;
  due_ = now;
}

void RegistrationSchedule::kubeletAppeared(Time now, bool ourSocketStayed) {
  kubeletThere_ = true;
  // This kubelet was found before its event was read. A second Register would make it lose the
  // first socket while it may be admitting a pod.
  if (ourSocketStayed && (inFlight_ || registered_ || streams_ > 0)) {
    registered_ = registered_ || streams_ > 0;
    briefStreams_ = 0;
    retry_ = kFirstRetry;
    return;
  }
  restarted(now);  // an answer or a stream of the old kubelet doesn't count
}

void RegistrationSchedule::kubeletVanished() {
  kubeletThere_ = false;
  registered_ = false;
}

void RegistrationSchedule::attempted() {
  inFlight_ = true;
  endedInFlight_ = false;
}

void RegistrationSchedule::succeeded(Time now) {
  if (!inFlight_) return;
  inFlight_ = false;
  // The stream can have come and gone before the kubelet's answer: keep streamEnded()'s due_.
  if (endedInFlight_ && streams_ == 0) return;
  registered_ = true;
  due_ = now + kStreamDeadline;
}

void RegistrationSchedule::failed(Time now) {
  if (!inFlight_) return;
  inFlight_ = false;
  registered_ = streams_ > 0;  // the kubelet may have accepted, but answered too late
  backOff(now);
}

void RegistrationSchedule::backOff(Time now) {
  due_ = now + retry_;
  retry_ = std::min(retry_ * 2, kMaxRetry);
}

void RegistrationSchedule::streamStarted(Time now) {
  ++streams_;
  streamStart_ = now;
  registered_ = kubeletThere_;
}

void RegistrationSchedule::streamEnded(Time now) {
  if (streams_ > 0) --streams_;
  endedInFlight_ = inFlight_;
  briefStreams_ = now - streamStart_ < kBriefStream ? briefStreams_ + 1 : 0;
  // Even if it was an older stream, the kubelet may have dropped this resource with it.
  if (briefStreams_ <= kBriefStreams) return expect(now);
  registered_ = false;
  backOff(now);
}

void RegistrationSchedule::streamsGivenUp() {
  streams_ = 0;
  inFlight_ = false;
}

void RegistrationSchedule::restarted(Time now) {
  streamsGivenUp();
  briefStreams_ = 0;
  expect(now);
}

std::optional<RegistrationSchedule::Time> RegistrationSchedule::due() const {
  if (!kubeletThere_ || inFlight_ || streams_ > 0) return std::nullopt;
  return due_;
}

}  // namespace vdpa::plugin
