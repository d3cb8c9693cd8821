#include "deviceplugin/ping/measurement.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "common/mac_address.h"
#include "deviceplugin/guest/guest.h"
#include "deviceplugin/guest/histogram.h"
#include "deviceplugin/ping/message.h"

namespace vdpa::ping {
namespace {

using namespace std::chrono_literals;
using Clock = Measurement::Clock;

constexpr auto kSearchEach = 100ms;
constexpr auto kAnswerWithin = 1s;
constexpr uint64_t kMostLost = 10;  // requests: more of them say nothing new
constexpr auto kAskEach = 10ms;     // while sending: a question may get lost among the frames
constexpr auto kLookEach = 1ms;     // while sending: for answers, and whether to stop
constexpr auto kStartUp = 200ms;    // not counted: the switch learns, caches and clocks warm up
constexpr auto kReportEach = 1s;
constexpr size_t kBurst = 32;
constexpr uint64_t kBurstsPerSecond = 10'000;  // of a slow sender, so that its bursts are short
constexpr auto kWorthASleep = 200us;           // a sleep ends some 50 us late
constexpr int kCaughtUp = 4;                   // bursts: more of them overrun the receiver's ring

// By the receiver's clock.
double perSecond(const Measurement::Sample& from, const Measurement::Sample& to) {
  return static_cast<double>(to.count - from.count) * 1e9 /
         static_cast<double>(to.time - from.time);
}

uint64_t nanoseconds(Clock::duration time) {
  return static_cast<uint64_t>(std::chrono::nanoseconds(time).count());
}

// When the next burst is due, at a rate in frames per second; with 0, always.
class Schedule {
 public:
  Schedule(uint64_t rate, Clock::time_point start) : next_(start) {
    if (rate == 0) return;
    burst_ = std::clamp<uint64_t>(rate / kBurstsPerSecond, 1, kBurst);
    each_ = std::chrono::nanoseconds(burst_ * 1'000'000'000 / rate);
  }

  size_t burst() const { return burst_; }
  Clock::time_point next() const { return next_; }
  // After a burst. One who was held up catches up a little.
  void sent(Clock::time_point now) { next_ = std::max(next_ + each_, now - kCaughtUp * each_); }

 private:
  size_t burst_ = kBurst;
  Clock::duration each_{0};
  Clock::time_point next_;
};

}  // namespace

Measurement::Measurement(guest::Guest& guest, MacAddress own, uint64_t run, Stop stop)
    : guest_(guest), own_(own), run_(run), stop_(std::move(stop)) {}

template <typename Take>
void Measurement::receive(Take&& take) {
  guest_.receive([&](const guest::Received& received) {
    const auto frame = readMessage(received.start);
    if (frame && frame->to == own_ && frame->message.run == run_) take(*frame);
  });
}

void Measurement::post(MacAddress to, const Message& message) {
  guest_.send(1, [&](std::byte* frame) {
    writeMessage(frame, to, own_, message);
    return kShortestFrame;
  });
}

void Measurement::checkConnected() {
  if (guest_.frontEnd().ended())
    throw std::runtime_error("the node ended the connection: see vdpactl attachments there");
}

std::optional<MacAddress> Measurement::find(std::optional<MacAddress> peer,
                                            Clock::duration timeout) {
  std::optional<MacAddress> found;
  const auto end = Clock::now() + timeout;
  for (auto due = Clock::now(); !found && Clock::now() < end && !stop_();) {
    if (Clock::now() >= due) {
      post(peer.value_or(kBroadcast), {Kind::kEchoRequest, run_, 0, 0});
      due += kSearchEach;
    }
    receive([&](const ReceivedMessage& frame) {
      if (frame.message.kind == Kind::kEchoReply && (!peer || frame.from == *peer))
        found = frame.from;
    });
    checkConnected();
  }
  return found;
}

RoundTrips Measurement::ping(MacAddress peer, uint64_t count) {
  RoundTrips result;
  guest::Histogram times;
  uint64_t worst = 0;
  while (result.sent < count && !stop_()) {
    const uint64_t number = ++result.sent;
    const auto start = Clock::now();
    post(peer, {Kind::kEchoRequest, run_, number, 0});
    bool answered = false;
    while (!answered && Clock::now() - start < kAnswerWithin)
      receive([&](const ReceivedMessage& frame) {
        answered |= frame.message.kind == Kind::kEchoReply && frame.message.number == number;
      });
    if (!answered) {
      checkConnected();
      if (result.sent - result.answered >= kMostLost) break;
      continue;
    }
    const uint64_t took = nanoseconds(Clock::now() - start);
    times.add(took);
    worst = std::max(worst, took);
    ++result.answered;
  }
  result.medianUs = static_cast<double>(times.quantile(0.5)) / 1e3;
  result.p99Us = static_cast<double>(times.quantile(0.99)) / 1e3;
  result.worstUs = static_cast<double>(worst) / 1e3;
  return result;
}

Rate Measurement::send(MacAddress peer, uint32_t length, std::optional<Clock::duration> time,
                       uint64_t mostPerSecond, const Progress& progress) {
  Rate result;
  std::optional<Sample> first, last, reported;
  const auto begin = Clock::now();
  Schedule schedule(mostPerSecond, begin);
  auto look = begin, question = begin + kStartUp, report = question + kReportEach;
  while (true) {
    auto now = Clock::now();
    if (now >= schedule.next()) {
      result.sent += guest_.send(schedule.burst(), [&](std::byte* frame) {
        writeMessage(frame, peer, own_, {Kind::kData, run_, result.sent, 0});
        return length;
      });
      now = Clock::now();
      schedule.sent(now);
    }
    if (const auto due = std::min(schedule.next(), look); due - now >= kWorthASleep) {
      std::this_thread::sleep_until(due);
      continue;
    }
    if (now < look) continue;
    look = now + kLookEach;
    if (stop_() || (time && now - begin >= *time)) break;
    checkConnected();
    receive([&](const ReceivedMessage& frame) {
      if (frame.message.kind != Kind::kCountReply || frame.from != peer) return;
      last = {frame.message.number, frame.message.time};
      if (!first) first = reported = last;
    });
    if (progress && now >= report && last && last->time > reported->time) {
      progress(perSecond(*reported, *last), last->count);
      reported = last;
      report = now + kReportEach;
    }
    if (now >= question) {
      question = now + kAskEach;
      post(peer, {Kind::kCountRequest, run_, 0, 0});
    }
  }
  if (first && last->time > first->time) result.perSecond = perSecond(*first, *last);
  result.received = settled(peer);
  return result;
}

std::optional<Measurement::Sample> Measurement::ask(MacAddress peer) {
  std::optional<Sample> told;
  const auto start = Clock::now();
  for (auto question = start; !told && Clock::now() - start < kAnswerWithin;) {
    if (Clock::now() >= question) {
      post(peer, {Kind::kCountRequest, run_, 0, 0});
      question += kAskEach;
    }
    receive([&](const ReceivedMessage& frame) {
      if (frame.message.kind == Kind::kCountReply && frame.from == peer)
        told = {frame.message.number, frame.message.time};
    });
  }
  return told;
}

uint64_t Measurement::settled(MacAddress peer) {
  uint64_t count = 0;
  const auto start = Clock::now();
  for (bool grows = true; grows && Clock::now() - start < kAnswerWithin;) {
    std::this_thread::sleep_for(kAskEach);
    const auto told = ask(peer);
    if (!told) throw std::runtime_error("the receiver no longer answers");
    grows = told->count != count;
    count = told->count;
  }
  return count;
}

}  // namespace vdpa::ping
