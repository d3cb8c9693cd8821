// Measures the device's side of virtqueues: frames from one ring to another, by one thread. The
// rings refill themselves, so that no driver is timed: `ns` is the library with its misses in the
// cache of one core.
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/receive.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/virtqueue/driver.h"

namespace {

using namespace vdpa::virtqueue;

constexpr uint32_t kRingSize = 256;
constexpr size_t kBurst = 64;

// A ring whose buffers, all of one length, are available again as soon as they are used.
template <typename Driver>
class Refilled {
 public:
  Refilled(Direction direction, uint32_t length)
      : guest_(32 << 20), driver_(guest_, kRingSize), ring(driver_.connect(direction)) {
    for (uint32_t i = 0; i < kRingSize; ++i)
      driver_.add({guest_.allocate(length, 64), length, direction == Direction::kReceive});
    driver_.noCalls();
    for (uint32_t i = 0; i < kRingSize; ++i)
      halves_.push_back(load<uint64_t>(driver_.descriptorAt(i) + 8));
  }

  void refill(size_t count);

 private:
  test::Guest guest_;
  Driver driver_;
  uint16_t index_ = kRingSize;
  uint32_t entry_ = 0;
  std::vector<uint64_t> halves_;  // of a packed ring's descriptors: length, ID and flags

 public:
  typename Driver::Device ring;
};

template <>
void Refilled<test::SplitDriver>::refill(size_t count) {
  index_ = static_cast<uint16_t>(index_ + count);
  storeRelease(driver_.driver(split::kIndex), index_);
}

// A used descriptor has the wrap counter's value in both flags; the driver toggles AVAIL, and
// writes the length again.
template <>
void Refilled<test::PackedDriver>::refill(size_t count) {
  for (; count > 0; --count) {
    uint64_t& half = halves_[entry_];
    half ^= uint64_t{flag::kAvailable | flag::kUsed} << 48;
    store(driver_.descriptorAt(entry_) + 8, half);
    entry_ = (entry_ + 1) % kRingSize;
  }
}

double now() {  // seconds of this thread's processor time
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct Result {
  double best, median;  // the twentieth part's, and the half's
};

template <typename From, typename To>
Result nanosecondsPerFrame(uint32_t frameLength, double seconds) {
  Refilled<From> from(Direction::kTransmit, frameLength + kHeaderSize);
  Refilled<To> to(Direction::kReceive, 2048);
  auto burst = std::make_unique<BufferList>(), buffers = std::make_unique<BufferList>();
  std::vector<Frame> frames(kBurst);
  std::vector<Place> places(kBurst);
  std::vector<uint32_t> lengths(kBurst);
  const NetFormat format{kHeaderSize, true};
  Lease sent, received;

  std::vector<double> slices;  // nanoseconds a frame, of processor time: the machine may be busy
  for (const double end = now() + seconds; now() < end;) {
    uint64_t count = 0;
    const double start = now();
    for (int pass = 0; pass < 200; ++pass) {
      const size_t n = fetch(from.ring, *burst, kBurst, sent);
      for (size_t i = 0; i < n; ++i) {
        readFrame(*burst, (*burst)[i], kHeaderSize, frames[i]);
        lengths[i] = frames[i].length;
      }
      reserve(to.ring, format, std::span(lengths).first(n), std::span(places).first(n), *buffers,
              received);
      for (size_t i = 0; i < n; ++i) {
        if (i + 1 < n && frameLength > Frame::kHeadSize) {
          prefetchFrame(frames[i + 1]);
          prefetchPlace(*buffers, places[i + 1], lengths[i + 1]);
        }
        write(*buffers, places[i], format, {}, frames[i]);
      }
      to.ring.fill(received, *buffers);
      to.ring.publish(received);
      giveBack(from.ring, *burst, sent);
      count += n;
      from.refill(n);
      to.refill(n);
    }
    slices.push_back((now() - start) * 1e9 / static_cast<double>(count));
  }
  if (from.ring.fault() || to.ring.fault()) {
    fmt::print(stderr, "{}\n{}\n", describe(from.ring.fault()), describe(to.ring.fault()));
    std::exit(1);
  }
  std::sort(slices.begin(), slices.end());
  return {slices[slices.size() / 20], slices[slices.size() / 2]};
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 0.5;
  for (const uint32_t length : {60u, 64u, 512u, 1514u, 9014u}) {
    const Result split = nanosecondsPerFrame<test::SplitDriver, test::SplitDriver>(length, seconds);
    const Result packed =
        nanosecondsPerFrame<test::PackedDriver, test::PackedDriver>(length, seconds);
    fmt::print("{:5} bytes, ns a frame: split {:6.1f} (median {:6.1f}), packed {:6.1f} ({:6.1f})\n",
               length, split.best, split.median, packed.best, packed.median);
  }
}
