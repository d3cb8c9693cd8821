// See the header.
#include "deviceplugin/kubelet/registration.h"

#include <algorithm>

namespace vdpa {

void Registration::expect(Time now) {
  registered_ = false;
  retry_ = kFirstRetry;
  due_ = now;
}

void Registration::kubeletAppeared(Time now) {
  kubeletThere_ = true;
  inFlight_ = false;  // an answer of the old kubelet doesn't count
  expect(now);
}

void Registration::kubeletVanished() {
  kubeletThere_ = false;
  registered_ = false;
}

void Registration::attempted() {
  inFlight_ = true;
  endedInFlight_ = false;
}

void Registration::succeeded(Time now) {
  if (!inFlight_) return;
  inFlight_ = false;
  // The stream can have come and gone before the kubelet's answer.
  if (endedInFlight_ && streams_ == 0) return expect(now);
  registered_ = true;
  due_ = now + kStreamDeadline;
}

void Registration::failed(Time now) {
  if (!inFlight_) return;
  inFlight_ = false;
  registered_ = streams_ > 0;  // the kubelet may have taken us and been late to say so
  due_ = now + retry_;
  retry_ = std::min(retry_ * 2, kLongestRetry);
}

void Registration::streamStarted() {
  ++streams_;
  retry_ = kFirstRetry;
  registered_ = kubeletThere_;
}

void Registration::streamEnded(Time now) {
  if (streams_ > 0) --streams_;
  endedInFlight_ = inFlight_;
  // Whichever stream it was, the kubelet may have dropped this resource with it.
  expect(now);
}

void Registration::restarted(Time now) {
  streams_ = 0;
  inFlight_ = false;
  expect(now);
}

std::optional<Registration::Time> Registration::due() const {
  if (!kubeletThere_ || inFlight_ || streams_ > 0) return std::nullopt;
  return due_;
}

}  // namespace vdpa
