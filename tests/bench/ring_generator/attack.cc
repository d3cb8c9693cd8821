#include "tests/bench/ring_generator/attack.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/errors.h"
#include "common/unique_fd.h"
#include "deviceplugin/guest/guest.h"
#include "tests/bench/ring_generator/frames.h"

namespace vdpa::bench {
namespace {

constexpr size_t kPage = 4096;

}  // namespace

// An epoll set watches a file once for each of its descriptors: with as many sets as descriptors,
// few of either are enough.
class Attackers::Watchers {
 public:
  Watchers(int file, size_t count) {
    const auto side = static_cast<size_t>(std::ceil(std::sqrt(static_cast<double>(count))));
    for (size_t i = 0; i < side; ++i)
      descriptors_.emplace_back(
          checked(::fcntl(file, F_DUPFD_CLOEXEC, 0), "cannot duplicate an eventfd"));
    for (; count > 0;) {
      sets_.emplace_back(checked(::epoll_create1(EPOLL_CLOEXEC), "cannot make an epoll set"));
      for (size_t i = 0; i < side && count > 0; ++i, --count) {
        epoll_event event{};
        event.events = EPOLLIN;
        checked(::epoll_ctl(sets_.back().get(), EPOLL_CTL_ADD, descriptors_[i].get(), &event),
                "cannot watch an eventfd that often; see /proc/sys/fs/epoll/max_user_watches");
      }
    }
  }

 private:
  std::vector<UniqueFd> descriptors_, sets_;
};

Attackers::Attackers(const std::vector<std::unique_ptr<Guest>>& guests, const SharedMemory& memory,
                     const AttackOptions& options)
    : guests_(guests), memory_(memory), options_(options), format_(options.frameBytes, false) {
  const uint32_t to = options.kind == Attack::kBroadcast ? kBroadcast : options.first;
  for (uint32_t i = 0; i < guests.size(); ++i)
    for (uint32_t buffer = 0; buffer < guests[i]->transmitBuffers(); ++buffer)
      format_.prepare(guests[i]->transmitFrame(buffer), options.first + i, to);
  if (options.kind == Attack::kWatchers)
    watchers_ = std::make_unique<Watchers>(guests.front()->receiveCall(), options.watchers);
}

Attackers::~Attackers() = default;

void Attackers::pass() {
  if (options_.kind == Attack::kNone) return;
  if (options_.kind == Attack::kHoles) punch();
  for (size_t i = 1; i < guests_.size(); ++i) {
    if (options_.kind == Attack::kKicks) {
      guests_[i]->notify();
      ++extras_;
    } else {
      send(*guests_[i]);
    }
  }
  for (size_t i = options_.kind == Attack::kDeaf ? 1 : 0; i < guests_.size(); ++i)
    guests_[i]->discard();
}

void Attackers::send(Guest& guest) {
  guest.send(options_.burst, [&](std::byte* frame) {
    // Locally administered, and nobody's: the guests' own begin with 02:00.
    constexpr uint64_t kNobody = 0x060000000000;
    if (options_.kind == Attack::kAddresses) format_.source(frame, kNobody | ++address_);
    if (options_.kind == Attack::kUnknown) format_.destination(frame, kNobody | ++address_);
    return options_.frameBytes;
  });
}

void Attackers::punch() {
  const size_t pages = memory_.size() / kPage;
  const auto ofBuffers = [&](size_t page) {
    const std::byte* at = memory_.start() + page * kPage;
    return std::any_of(guests_.begin(), guests_.end(), [&](const auto& guest) {
      const auto buffers = guest->buffers();
      return at >= buffers.data() && at + kPage <= buffers.data() + buffers.size();
    });
  };
  do page_ = (page_ + 1) % pages;
  while (!ofBuffers(page_));
  memory_.punch(page_ * kPage, kPage);
  ++extras_;
}

uint64_t Attackers::sent() const {
  uint64_t sum = 0;
  for (const auto& guest : guests_) sum += guest->sent;
  return sum;
}

uint64_t Attackers::ended() const {
  return static_cast<uint64_t>(std::count_if(
      guests_.begin(), guests_.end(), [](const auto& guest) { return guest->frontEnd().ended(); }));
}

}  // namespace vdpa::bench
