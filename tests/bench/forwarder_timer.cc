// Measures the pollers of the switch: frames between ports whose rings refill themselves, so that
// no driver is timed. Pairs of ports send to each other; `ns` is processor time of all pollers by
// frames forwarded.
//
//   forwarder-timer [SECONDS] [split|packed]
#include <fmt/core.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "common/serving_page.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/counters.h"
#include "deviceplugin/datapath/switch/forwarding/epoch.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/poller.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/uplink.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/virtqueue/driver.h"

namespace {

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::virtqueue;

constexpr uint32_t kRingSize = 256;
// Of a pod that all send to.
constexpr uint32_t kLargeRing = 4096;
constexpr size_t kHugePage = 2 << 20;
// As DPDK has it: the frame begins with a cache line, and the header is at the end of the one
// before.
constexpr uint32_t kHeaderAt = 64 - kHeaderSize;

uint64_t macOf(unsigned port) {
  return 0x020000000000 + port;
}

// The memory of a pod, in huge pages if there are some.
class Memory {
 public:
  explicit Memory(size_t bytes) : size_((bytes + kHugePage - 1) / kHugePage * kHugePage) {
    data_ = static_cast<std::byte*>(std::aligned_alloc(kHugePage, size_));
    ::madvise(data_, size_, MADV_HUGEPAGE);
  }
  ~Memory() { std::free(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  std::byte* data_;
};

// A ring whose buffers are available again as soon as they are used.
template <typename Driver>
class Refilled {
 public:
  Refilled(test::Guest& guest, Direction direction, uint32_t size, uint32_t length, uint32_t step)
      : size_(size), driver_(guest, size) {
    for (uint32_t i = 0; i < size; ++i) {
      const uint64_t address = guest.allocate(step, 64) + kHeaderAt;
      addresses.push_back(address);
      driver_.add({address, length, direction == Direction::kReceive});
    }
    driver_.noCalls();
    for (uint32_t i = 0; i < size; ++i)
      halves_.push_back(load<uint64_t>(driver_.descriptorAt(i) + 8));
  }
  auto connect(Direction direction) { return driver_.connect(direction); }
  void refill();

  std::vector<uint64_t> addresses;

 private:
  const uint32_t size_;
  Driver driver_;
  uint32_t entry_ = 0;
  bool wrap_ = true;
  std::vector<uint64_t> halves_;  // of a packed ring's descriptors: length, ID and flags
};

// By any poller: the index only moves on.
template <>
void Refilled<test::SplitDriver>::refill() {
  auto* index = reinterpret_cast<uint16_t*>(driver_.driver(split::kIndex));
  const auto used = load<uint16_t>(driver_.device(split::kIndex));
  const auto next = static_cast<uint16_t>(used + size_);
  auto now = __atomic_load_n(index, __ATOMIC_RELAXED);
  while (
      static_cast<int16_t>(next - now) > 0 &&
      !__atomic_compare_exchange_n(index, &now, next, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
  }
}

template <>
void Refilled<test::PackedDriver>::refill() {
  for (;;) {
    const auto flags =
        static_cast<uint16_t>(load<uint64_t>(driver_.descriptorAt(entry_) + 8) >> 48);
    if (((flags & flag::kAvailable) != 0) != wrap_ || ((flags & flag::kUsed) != 0) != wrap_) return;
    uint64_t& half = halves_[entry_];
    half ^= uint64_t{flag::kAvailable | flag::kUsed} << 48;
    store(driver_.descriptorAt(entry_) + 8, half);
    if (++entry_ == size_) entry_ = 0, wrap_ = !wrap_;
  }
}

template <typename Driver>
struct Pod {
  Pod(unsigned number, unsigned pollers, uint32_t frame, bool allToOne)
      : step(std::max(2048u, (frame + 191) / 64 * 64)),
        receiveSize(allToOne && number == 1 ? kLargeRing : kRingSize),
        memory(size_t{kRingSize + receiveSize} * step + (512 << 10)),
        guest(memory.data(), memory.size()),
        sends(guest, Direction::kTransmit, kRingSize, frame + kHeaderSize, step),
        receives(guest, Direction::kReceive, receiveSize, step - kHeaderAt, step),
        transmit{{sends.connect(Direction::kTransmit), &port, 1, -1, {}, {}, Offloads::kNone}},
        receive{{receives.connect(Direction::kReceive), &port, 0, -1, {}, {}, Offloads::kNone},
                {}} {
    receive.format.mergeable = true;
    port.number = static_cast<MacTable::Port>(number);
    port.counters = std::vector<Counters>(pollers);
    view.linkUp = true;
    view.maxFrame = 9014;
    view.mac = macOf(number);
    view.receiveCount = 1;
    view.receive[0] = &receive;
    port.view = &view;
    const unsigned peer = allToOne ? (number == 1 ? 2 : 1) : ((number - 1) ^ 1) + 1;
    for (const uint64_t address : sends.addresses) {
      const uint64_t to = __builtin_bswap64(macOf(peer) << 16),
                     from = __builtin_bswap64(macOf(number) << 16);
      std::memcpy(guest.at(address + kHeaderSize), &to, 6);
      std::memcpy(guest.at(address + kHeaderSize + 6), &from, 6);
    }
  }

  uint32_t step, receiveSize;
  Memory memory;
  test::Guest guest;
  Refilled<Driver> sends, receives;
  Port port;
  PortView view;
  TransmitQueue transmit;
  ReceiveQueue receive;
};

// Not an uplink: the pollers call it in each pass, on their threads, and it refills the rings.
template <typename Driver>
class Refiller : public Uplink {
 public:
  explicit Refiller(unsigned pollers) : pods(pollers) {}
  size_t receive(unsigned queue, std::span<UplinkFrame>) override {
    for (auto* pod : pods[queue]) {
      pod->sends.refill();
      pod->receives.refill();
    }
    return 0;
  }
  void release(unsigned) override {}
  Offloads offloads() const override { return Offloads::kNone; }
  size_t send(unsigned, std::span<const Outgoing> frames, size_t&) override {
    return frames.size();
  }
  int wakeFd(unsigned) const override { return -1; }
  void armWake(unsigned) override {}
  void disarmWake(unsigned) override {}

  std::vector<std::vector<Pod<Driver>*>> pods;  // by poller
};

double processTime() {  // seconds
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct Result {
  double best, median;  // ns a frame: the quarter's, and the half's
  double rate;          // frames a second, in millions
  double lost;          // percent: a poller that does not run keeps the others' frames from a ring
};

template <typename Driver>
Result measure(unsigned ports, unsigned active, uint32_t frame, unsigned pollers, double seconds,
               bool allToOne = false) {
  Epoch epoch(pollers);
  PortTable table;
  MacTable macs;
  Offences offences;
  Refiller<Driver> refiller(pollers);
  ServingPage serving("/tmp/forwarder-timer", pollers, ports + 1);
  Port uplink;
  uplink.counters = std::vector<Counters>(pollers);
  PortView uplinkView;
  uplinkView.linkUp = true;
  uplink.view = &uplinkView;
  table.add(uplink);
  std::vector<std::unique_ptr<Pod<Driver>>> pods;
  std::vector<UniqueFd> kicks;
  for (unsigned i = 1; i <= ports; ++i) {
    pods.push_back(std::make_unique<Pod<Driver>>(i, pollers, frame, allToOne));
    table.add(pods.back()->port);
    macs.addStatic(macOf(i), 0, static_cast<MacTable::Port>(i));
    if (i <= active) refiller.pods[(i - 1) / 2 % pollers].push_back(pods.back().get());
    // Nobody waits for one poller to refill the ring that all deliver into.
    if (allToOne && i == 1 && std::is_same_v<Driver, test::SplitDriver>)
      for (unsigned other = 1; other < pollers; ++other)
        refiller.pods[other].push_back(pods.back().get());
    // The others wait for a kick that never comes.
    kicks.emplace_back(::eventfd(0, 0));
    if (i > active) pods.back()->transmit.kick = kicks.back().get();
  }
  const auto frames = [&] {
    uint64_t sum = 0;
    for (const auto& pod : pods)
      for (const auto& counters : pod->port.counters) sum += counters.rxPackets.get();
    return sum;
  };
  // Processor time and frames; unsure if the scheduler took this thread's processor in between.
  struct Moment {
    double time;
    uint64_t frames;
    bool sure;
  };
  const auto moment = [&] {
    const double time = processTime();
    const uint64_t count = frames();
    return Moment{time, count, processTime() - time < 50e-6};
  };
  Result result;
  {
    std::vector<std::unique_ptr<Poller>> threads;
    for (unsigned i = 0; i < pollers; ++i) {
      const unsigned cpus = std::thread::hardware_concurrency();
      threads.push_back(std::make_unique<Poller>(
          i, cpus - 1 - i % cpus, Poller::Shared{epoch, table, macs, offences, &refiller},
          serving.cell(i)));
    }
    for (unsigned i = 1; i <= ports; ++i)
      threads[(i - 1) / 2 % pollers]->assign(pods[i - 1]->transmit);
    epoch.afterPass([] {});
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    std::vector<double> slices;
    const uint64_t first = frames();
    const auto start = std::chrono::steady_clock::now();
    const std::chrono::duration<double> length(seconds);
    while (std::chrono::steady_clock::now() - start < length) {
      const Moment before = moment();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      const Moment after = moment();
      if (before.sure && after.sure && after.frames > before.frames)
        slices.push_back((after.time - before.time) * 1e9 /
                         static_cast<double>(after.frames - before.frames));
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    result.rate = static_cast<double>(frames() - first) / took.count() * 1e-6;
    uint64_t drops = 0;
    for (const auto& pod : pods)
      for (const auto& counters : pod->port.counters)
        drops += counters.drops[static_cast<size_t>(Drop::rxFull)].get();
    result.lost = 100 * static_cast<double>(drops) / static_cast<double>(drops + frames());
    std::sort(slices.begin(), slices.end());
    result.best = slices.empty() ? 0 : slices[slices.size() / 4];
    result.median = slices.empty() ? 0 : slices[slices.size() / 2];
  }
  for (const auto& report : offences.take()) fmt::print(stderr, "port {} at fault\n", report.port);
  epoch.runAll();
  return result;
}

template <typename Driver>
void measureAll(double seconds) {
  for (const unsigned pollers : {1u, 2u})
    for (const uint32_t frame : {60u, 1514u})
      for (const unsigned ports : {2u, 16u, 64u, 256u}) {
        if (pollers == 2 && ports == 2) continue;
        const Result result = measure<Driver>(ports, ports, frame, pollers, seconds);
        fmt::print(
            "{} poller(s), {:3} ports, {:4} bytes: {:6.1f} ns a frame (median {:6.1f}), {:5.1f} "
            "M/s\n",
            pollers, ports, frame + 4, result.best, result.median, result.rate);
        std::fflush(stdout);
      }
  for (const unsigned ports : {2u, 256u}) {
    const Result result = measure<Driver>(ports, 2, 60, 1, seconds);
    fmt::print(
        "1 poller, 2 of {:3} ports active: {:6.1f} ns a frame (median {:6.1f}), {:5.1f} M/s\n",
        ports, result.best, result.median, result.rate);
  }
  for (const unsigned pollers : {1u, 2u}) {
    const Result result = measure<Driver>(5, 5, 60, pollers, seconds, true);
    fmt::print(
        "{} poller(s), 4 ports to one: {:6.1f} ns a frame (median {:6.1f}), {:5.1f} M/s, {:.1f} % "
        "lost\n",
        pollers, result.best, result.median, result.rate, result.lost);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1;
  if (argc > 2 && std::string(argv[2]) == "packed")
    measureAll<test::PackedDriver>(seconds);
  else
    measureAll<test::SplitDriver>(seconds);
}
