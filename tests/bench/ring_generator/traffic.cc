#include "tests/bench/ring_generator/traffic.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "deviceplugin/guest/guest.h"
#include "tests/bench/ring_generator/clock.h"
#include "tests/bench/ring_generator/frames.h"

namespace vdpa::bench {
namespace {

constexpr double kLearnTimeout = 20;  // s

uint64_t inCycles(double seconds, double frequency) {
  return static_cast<uint64_t>(seconds * frequency);
}

}  // namespace

Traffic::Traffic(const std::vector<std::unique_ptr<Guest>>& guests, const FrameFormat& format,
                 const TrafficOptions& options)
    : guests_(guests), format_(format), options_(options), frequency_(measureFrequency()) {
  if (guests.size() < 2 || guests.size() % 2 != 0)
    throw std::invalid_argument("traffic needs pairs of guests");
  for (uint32_t i = 0; i < guests.size(); ++i)
    for (uint32_t buffer = 0; buffer < guests[i]->transmitBuffers(); ++buffer)
      format_.prepare(guests[i]->transmitFrame(buffer), options.first + i, options.first + (i ^ 1));
  if (options.check) expected_.assign(guests.size(), std::vector<uint64_t>(guests.size()));
  setSenders();
}

void Traffic::setSenders() {
  const auto count = static_cast<uint32_t>(guests_.size());
  const uint32_t first = options_.first;
  for (uint32_t i = 0; i < count; ++i) {
    Sender sender{guests_[i].get(), first + i, first + (i ^ 1), {}};
    bool sends = true;
    switch (options_.pattern) {
      case Pattern::kOne:
        sends = i % 2 == 0;
        break;
      case Pattern::kBoth:
        break;
      case Pattern::kScattered:
        sends = i == 0;
        [[fallthrough]];
      case Pattern::kAll:
        for (uint32_t to = 1; to < count; ++to) sender.others.push_back(first + (i + to) % count);
        break;
      case Pattern::kToOne:
        sends = i != 0;
        sender.to = first;
        break;
      case Pattern::kBroadcast:
        sends = i == 0;
        sender.to = kBroadcast;
        break;
    }
    if (sends) senders_.push_back(std::move(sender));
  }
}

void Traffic::learn() {
  TrafficResult result;
  const uint64_t end = cycles() + inCycles(kLearnTimeout, frequency_);
  std::vector<uint64_t> before;
  for (const auto& guest : guests_) before.push_back(guest->received);
  const auto silent = [&] {
    for (size_t i = 0; i < guests_.size(); ++i)
      if (guests_[i]->received == before[i]) return true;
    return false;
  };
  while (silent()) {
    if (cycles() > end) throw std::runtime_error("no frames arrive");
    for (const auto& guest : guests_)
      guest->send(1, [&](std::byte* frame) {
        format_.stamp(frame, {});
        return format_.length();
      });
    const uint64_t pause = cycles() + inCycles(0.001, frequency_);
    while (cycles() < pause)
      for (const auto& guest : guests_) guest->receive([](const Received&) {});
  }
  drain(result, 0.05);
  // From now on, buffers lead to where the pattern has its frames go.
  for (Sender& sender : senders_)
    for (uint32_t buffer = 0; buffer < sender.guest->transmitBuffers(); ++buffer)
      format_.prepare(sender.guest->transmitFrame(buffer), sender.number, sender.to);
  latencies_.clear();
}

TrafficResult Traffic::run(double seconds, const std::function<void()>& between) {
  TrafficResult result;
  const uint64_t begin = cycles(), end = begin + inCycles(seconds, frequency_);
  const double gap = options_.rate > 0 ? frequency_ / options_.rate : 0;
  uint64_t busy = 0, offered = 0, now = begin;
  while (now < end) {
    size_t moved = 0;
    if (gap > 0) {
      const auto due = static_cast<uint64_t>(static_cast<double>(now - begin) / gap);
      for (size_t tries = senders_.size(); tries > 0 && offered < due; --tries) {
        const auto count =
            std::min<uint64_t>(options_.burst, senders_.size() == 1 ? due - offered : 1);
        const size_t sent = send(senders_[turn_], count);
        turn_ = turn_ + 1 == senders_.size() ? 0 : turn_ + 1;
        offered += sent;
        moved += sent;
      }
    } else {
      for (Sender& sender : senders_) moved += send(sender, options_.burst);
    }
    result.sent += moved;
    moved += receive(result);
    const uint64_t then = cycles();
    if (moved > 0) busy += then - now;
    now = then;
    if (between) between();
  }
  const auto total = static_cast<double>(now - begin);
  result.seconds = total / frequency_;
  result.busy = static_cast<double>(busy) / total;
  return result;
}

void Traffic::drain(TrafficResult& result, double quiet, const std::function<void()>& between) {
  const uint64_t pause = inCycles(quiet, frequency_), end = cycles() + inCycles(2, frequency_);
  for (uint64_t last = cycles(), now = last; now < last + pause && now < end; now = cycles()) {
    if (receive(result) > 0) last = now;
    if (between) between();
  }
}

size_t Traffic::send(Sender& sender, size_t count) {
  const uint64_t now = cycles();
  return sender.guest->send(count, [&](std::byte* frame) {
    if (!sender.others.empty()) {
      format_.address(frame, sender.others[sender.next]);
      sender.next = sender.next + 1 == sender.others.size() ? 0 : sender.next + 1;
    }
    if (options_.flows > 1) {
      format_.flow(frame, static_cast<uint16_t>(sender.flow));
      sender.flow = sender.flow + 1 == options_.flows ? 0 : sender.flow + 1;
    }
    const uint64_t sequence = ++sender.sequence;
    format_.stamp(frame, {sequence, now});
    if (options_.check) format_.fill(frame, sender.number, sequence);
    return format_.length();
  });
}

size_t Traffic::receive(TrafficResult& result) {
  // A burst that is scattered leaves each guest a frame or two: one guest at a time, with a burst
  // of its own, or this thread would be slower than the switch.
  const bool one = options_.pattern == Pattern::kScattered && options_.rate == 0;
  size_t frames = 0;
  for (size_t visits = one ? 1 : guests_.size(); visits > 0; --visits) {
    const auto i = static_cast<uint32_t>(nextReceiver_);
    nextReceiver_ = nextReceiver_ + 1 == guests_.size() ? 0 : nextReceiver_ + 1;
    frames += guests_[i]->receive([&](const Received& frame) {
      if (frame.start.size() < FrameFormat::kShortest ||
          !FrameFormat::isFor(frame.start, options_.first + i) ||
          FrameFormat::sender(frame.start) - options_.first >= guests_.size()) {
        ++result.misdelivered;
        return;
      }
      ++result.received;
      result.receivedBytes += frame.length;
      if (options_.rate > 0) latencies_.add(cycles() - format_.stampOf(frame.start).time);
      if (options_.check) check(i, frame, result);
    });
  }
  return frames;
}

void Traffic::check(uint32_t receiver, const Received& frame, TrafficResult& result) {
  const uint32_t from = FrameFormat::sender(frame.start);
  const Stamp stamp = format_.stampOf(frame.start);
  if (stamp.sequence == 0) return;                // of learn()
  const uint32_t number = from - options_.first;  // of a guest below the first: a large one
  if (frame.length != format_.length() || number >= guests_.size()) {
    ++result.damaged;
    return;
  }
  bool intact = true;
  if (frame.parts.empty()) {
    intact = format_.intact(frame.start, 0, from, stamp.sequence);
  } else {
    uint32_t offset = 0;
    for (const auto& part : frame.parts) {
      intact = intact && format_.intact(part, offset, from, stamp.sequence);
      offset += static_cast<uint32_t>(part.size());
    }
  }
  if (!intact) ++result.damaged;
  uint64_t& expected = expected_[receiver][number];
  if (stamp.sequence < expected) ++result.disordered;
  expected = std::max(expected, stamp.sequence + 1);
}

}  // namespace vdpa::bench
