#include "deviceplugin/ping/answerer.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <thread>

#include "common/errors.h"
#include "common/mac_address.h"
#include "deviceplugin/guest/guest.h"
#include "deviceplugin/ping/message.h"

namespace vdpa::ping {
namespace {

using namespace std::chrono_literals;

// With so many frames at one look, notifications would come faster than they can be answered: more
// frames are left to gather for a while instead, so that the sender and the switch have the time.
constexpr size_t kMany = 32;
// A ring of 1,024 entries fills up in this time at ten million frames a second.
constexpr auto kGather = 100us;
constexpr auto kReportEach = 1s;
constexpr size_t kMostRuns = 64;  // that are remembered

uint64_t nanoseconds(Answerer::Clock::time_point time) {
  return static_cast<uint64_t>(std::chrono::nanoseconds(time.time_since_epoch()).count());
}

}  // namespace

Answerer::Answerer(guest::Guest& guest, MacAddress own) : guest_(guest), own_(own) {}

void Answerer::run(int stop, const Report& report) {
  ::prctl(PR_SET_TIMERSLACK, 1);  // ns; else kGather takes half as long again
  auto reported = Clock::now();
  uint64_t then = 0;
  while (true) {
    const size_t frames = receive();
    if (frames >= kMany)
      std::this_thread::sleep_for(kGather);
    else if (frames == 0 && !sleep(stop))
      return;
    const auto now = Clock::now();
    if (now - reported < kReportEach) continue;
    if (total_ != then) report(total_, total_ - then, now - reported);
    reported = now;
    then = total_;
    if (pollfd stopping{stop, POLLIN, 0}; ::poll(&stopping, 1, 0) > 0) return;
  }
}

bool Answerer::sleep(int stop) {
  guest_.setReceiveCalls(true);
  if (receive() > 0) {
    guest_.setReceiveCalls(false);
    return true;
  }
  pollfd watched[2] = {{guest_.receiveCall(), POLLIN, 0}, {stop, POLLIN, 0}};
  constexpr int kTimeout = std::chrono::milliseconds(kReportEach).count();
  const int ready = ::poll(watched, 2, kTimeout);
  if (ready < 0 && errno != EINTR) throw systemError(errno, "cannot wait for frames");
  eventfd_t calls = 0;
  ::eventfd_read(guest_.receiveCall(), &calls);
  guest_.setReceiveCalls(false);
  if (guest_.frontEnd().ended())
    throw std::runtime_error("the node ended the connection: see vdpactl attachments there");
  return watched[1].revents == 0;
}

size_t Answerer::receive() {
  return guest_.receive([this](const guest::Received& received) {
    const auto frame = readMessage(received.start);
    if (frame && frame->from != own_ && (frame->to == own_ || frame->to == kBroadcast))
      take(*frame);
  });
}

void Answerer::take(const ReceivedMessage& frame) {
  Message message = frame.message;
  switch (message.kind) {
    case Kind::kEchoRequest:
      message.kind = Kind::kEchoReply;
      return answer(frame.from, message);
    case Kind::kData:
      if (!count_ || countedRun_ != message.run) {
        if (counts_.size() >= kMostRuns && !counts_.contains(message.run)) counts_.clear();
        count_ = &counts_[message.run];
        countedRun_ = message.run;
      }
      ++*count_;
      ++total_;
      return;
    case Kind::kCountRequest: {
      const auto found = counts_.find(message.run);
      return answer(frame.from,
                    {Kind::kCountReply, message.run, found == counts_.end() ? 0 : found->second,
                     nanoseconds(Clock::now())});
    }
    case Kind::kEchoReply:
    case Kind::kCountReply:
      return;
  }
}

void Answerer::answer(MacAddress to, const Message& message) {
  guest_.send(1, [&](std::byte* frame) {
    writeMessage(frame, to, own_, message);
    return kShortestFrame;
  });
}

}  // namespace vdpa::ping
