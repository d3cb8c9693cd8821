#include "deviceplugin/datapath/switch/forwarding/poller.h"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <exception>
#include <future>
#include <optional>
#include <thread>
#include <utility>
#include <variant>

#include "common/errors.h"
#include "common/log.h"
#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/forwarding/cycles.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/pace.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/forwarding/rate_limit.h"
#include "deviceplugin/datapath/switch/forwarding/source.h"
#include "deviceplugin/datapath/switch/forwarding/turn.h"

namespace vdpa::vswitch {
namespace {

// While anything is hot, cold queues wait at most this long.
constexpr uint64_t kLooksPerSecond = 50000;  // 20 us
// A poller stays awake for shorter waits: falling asleep and waking take as long.
constexpr uint64_t kShortestSleepPerSecond = 50000;  // 20 us
// How long it sleeps with a queue, or an uplink, that can only be polled.
constexpr uint64_t kNapsPerSecond = 1000;
constexpr uint64_t kUplinkNapsPerSecond = 10000;
// What it costs to begin and to stop polling a queue. Charged, or kicks without frames were free.
constexpr uint64_t kKicksPerSecond = 500000;  // 2 us
// Watching a kick takes a microsecond. A pod that makes it take so long is reported.
constexpr uint64_t kLongWatchesPerSecond = 200;  // 5 ms
// A poller checks its queues this often even without a wake-up.
constexpr int kMaxSleep = 1000;  // ms

}  // namespace

Poller::Poller(unsigned number, std::optional<unsigned> cpu, Shared shared,
               ServingPage::Cell& serving)
    : number_(number),
      cpu_(cpu),
      shared_(shared),
      serving_(serving),
      hz_(measureCyclesPerSecond()),
      assignments_(hz_),
      share_(hz_),
      cpuTime_(hz_),
      notifier_(shared.offences, share_, cpuTime_, hz_),
      forwarder_(number, {shared.ports, shared.table, shared.offences, shared.uplink}, notifier_,
                 serving),
      sources_(serving),
      timer_(checked(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "cannot create a timer")),
      uplink_{shared.uplink != nullptr, shared.uplink ? shared.uplink->wakeFd(number) : -1,
              Pace(hz_), Turn(hz_), Memo()} {
  sources_.watch(shared_.epoch.wakeFd(number_), EPOLLIN);
  sources_.watch(timer_.get(), EPOLLIN | EPOLLET);  // never read, as the kicks
  if (uplink_.wakeFd >= 0) sources_.watch(uplink_.wakeFd, EPOLLIN);
  std::promise<void> promise;
  std::future<void> begun = promise.get_future();
  thread_ = std::thread([this, promise = std::move(promise)]() mutable {
    try {
      begin();
    } catch (...) {
      return promise.set_exception(std::current_exception());
    }
    promise.set_value();
    run();
  });
  try {
    begun.get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

Poller::~Poller() {
  stop_ = true;
  // Ends the poller's sleep, as it does for any reason.
  ::eventfd_write(shared_.epoch.wakeFd(number_), 1);
  thread_.join();
}

std::chrono::nanoseconds Poller::busy() const {
  return std::chrono::nanoseconds(
      static_cast<int64_t>(1e9 * static_cast<double>(busy_.get()) / static_cast<double>(hz_)));
}

void Poller::begin() {
  ::pthread_setname_np(::pthread_self(), fmt::format("poller-{}", number_).c_str());
  if (cpu_) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(*cpu_, &cpus);
    if (::pthread_setaffinity_np(::pthread_self(), sizeof cpus, &cpus) != 0)
      log::warn("cannot pin poller {} to CPU {}; it runs where the kernel puts it", number_, *cpu_);
  }
  noteCrashesIn(serving_);
  notifier_.begin();
}

void Poller::run() {
  while (!stop_.load(std::memory_order_relaxed)) {
    shared_.epoch.enter(number_, [this] { follow(); });
    if (held_) {
      sleep(Notifier::kNever);
      continue;
    }
    const uint64_t now = cycles();
    cpuTime_.refresh(now);
    const Pass pass = pollOnce(now);
    notifyLate(now);
    if (pass.frames > 0) {
      busy_.add(cycles() - now);
    } else if (pass.owing != Notifier::kNever) {
      share_.skipTo(pass.owing);
    } else if (!pass.spinning) {
      const uint64_t next = std::min(pass.next, notifier_.due());
      if (next > now + hz_ / kShortestSleepPerSecond) {
        sleep(next);
        continue;
      }
    } else {
      __builtin_ia32_pause();
    }
    lookAround(now);
  }
}

// The control thread has changed something.
void Poller::follow() {
  assignments_.follow(
      [this](SourceList source) {
        const MacTable::Port port = source.front().port;
        sources_.add(std::move(source));
        settleWatching(port);
      },
      [this](const TransmitQueue& queue) {
        SourceList source = sources_.remove(queue);
        settleWatching(queue.port->number);
        return source;
      },
      [this](MacTable::Port port) {
        share_.forget(port);
        notifier_.forget(port);
        forwarder_.forget(port);
      });
  held_ = hold_;
}

void Poller::settleWatching(MacTable::Port port) {
  const uint64_t took = cpuTime_.used(sources_.takeWatching(), cycles());
  share_.charge(port, took);
  if (took > hz_ / kLongWatchesPerSecond) shared_.offences.report(port, Offence::kKickStalls);
}

Poller::Pass Poller::pollOnce(uint64_t now) {
  const Forwarder::Time time{now, static_cast<uint32_t>(now / hz_), shared_.ports.version()};
  Pass pass;
  share_.beginPass();
  sources_.eachHot([&](Source& source) { poll(source, time, pass); });
  if (uplink_.hot) pollUplink(time, pass);
  serving_.end();
  return pass;
}

void Poller::poll(Source& source, const Forwarder::Time& time, Pass& pass) {
  TransmitQueue& queue = source.queue;
  if (queue.broken.load(std::memory_order_relaxed)) [[unlikely]] {
    return sources_.leave(source);
  }
  // An empty one waits as well, and no kick reaches it until it may be served.
  if (!share_.mayServe(source.port)) {
    pass.owing = std::min(pass.owing, share_.paidAt(source.port));
    return;
  }
  serving_.begin(source.port, queue.index);
  if (!std::visit([](auto& ring) { return ring.available(); }, queue.ring))
    return pollEmpty(source, time.now, pass);
  const PortView& view = *queue.port->view.load(std::memory_order_acquire);
  size_t most = source.turn.frames();
  if (RateLimit* limit = view.sendLimit) [[unlikely]] {
    if (!limit->open(time.now)) {
      pass.next = std::min(pass.next, limit->paidAt());
      return;
    }
    most = std::min<size_t>(most, limit->burst());
  }
  const uint64_t start = cycles();
  const size_t count = forwarder_.serve(queue, view, source.memo, most, time);
  const uint64_t took = settle(source.port, start);
  if (count == 0) {
    pass.spinning = true;  // its pod has taken the frames back, and may not kick for others
    return;
  }
  source.turn.took(took, count);
  source.pace.found(time.now);
  sources_.makeLast(source);
  pass.frames += count;
}

void Poller::pollEmpty(Source& source, uint64_t now, Pass& pass) {
  const bool quiet = source.pace.quiet(now);
  if (quiet && source.kicks && sources_.cool(source))
    share_.charge(source.port, hz_ / kKicksPerSecond);
  else if (quiet && !source.kicks)
    pass.next = std::min(pass.next, now + hz_ / kNapsPerSecond);
  else
    pass.spinning = true;
}

void Poller::pollUplink(const Forwarder::Time& time, Pass& pass) {
  if (!share_.mayServe(kUplinkPort)) {
    pass.owing = std::min(pass.owing, share_.paidAt(kUplinkPort));
    return;
  }
  const size_t count = serveUplink(time);
  pass.frames += count;
  if (count > 0) return;
  const bool quiet = uplink_.pace.quiet(time.now);
  if (quiet && uplink_.wakeFd >= 0 && coolUplink(time)) return;
  if (quiet && uplink_.wakeFd < 0)
    pass.next = std::min(pass.next, time.now + hz_ / kUplinkNapsPerSecond);
  else
    pass.spinning = true;
}

size_t Poller::serveUplink(const Forwarder::Time& time) {
  const uint64_t start = cycles();
  const size_t count = forwarder_.serveUplink(uplink_.memo, uplink_.turn.frames(), time);
  if (count == 0) return 0;
  uplink_.turn.took(settle(kUplinkPort, start), count);
  uplink_.pace.found(time.now);
  return count;
}

bool Poller::coolUplink(const Forwarder::Time& time) {
  shared_.uplink->armWake(number_);
  uplink_.hot = false;
  // Frames that came before it was armed cause no wake-up.
  if (serveUplink(time) == 0) return true;
  heatUplink();
  return false;
}

void Poller::heatUplink() {
  if (!shared_.uplink || uplink_.hot) return;
  shared_.uplink->disarmWake(number_);
  uplink_.hot = true;
}

uint64_t Poller::settle(MacTable::Port port, uint64_t start) {
  const uint64_t now = cycles();
  const uint64_t took = cpuTime_.used(now - start, now);
  const uint64_t own = took - std::min(took, notifier_.takeExcess() + forwarder_.takeExcess());
  share_.charge(port, own);
  breakOffender();
  return own;
}

// The queues are of the connection that has offended: it is followed by another only after this
// pass.
void Poller::breakOffender() {
  const MacTable::Port offender = notifier_.takeOffender();
  if (offender == MacTable::kNoPort) [[likely]]
    return;
  sources_.breakAll(offender);
  const Port* port = shared_.ports.find(offender);
  if (!port) return;
  const PortView& view = *port->view.load(std::memory_order_acquire);
  for (uint16_t i = 0; i < view.receiveCount; ++i) view.receive[i]->broken = true;
}

void Poller::notifyLate(uint64_t now) {
  notifier_.notifyLate(now, [this](MacTable::Port number, uint16_t index) -> Queue* {
    if (index % 2 == 1) return sources_.find(number, index);
    const Port* port = shared_.ports.find(number);
    if (!port) return nullptr;
    const PortView& view = *port->view.load(std::memory_order_acquire);
    for (uint16_t i = 0; i < view.receiveCount; ++i)
      if (view.receive[i]->index == index) return view.receive[i];
    return nullptr;
  });
  notifier_.takeExcess();
  breakOffender();
}

// While it is awake: at the kicks of cold queues.
void Poller::lookAround(uint64_t now) {
  lookOnceASecond(now);
  if (now - lastEvents_ < hz_ / kLooksPerSecond) return;
  if (!sources_.anyCold() && (!shared_.uplink || uplink_.hot)) return;
  lastEvents_ = now;
  wait(0);
}

// At all queues, whether they were kicked or not.
void Poller::lookOnceASecond(uint64_t now) {
  if (now - lastLook_ < hz_) [[likely]]
    return;
  lastLook_ = now;
  sources_.lookAtAll();
}

void Poller::sleep(uint64_t until) {
  if (until != Notifier::kNever) setTimer(until, cycles());
  notifier_.rest();
  wait(kMaxSleep);
  notifier_.wake();
  const uint64_t now = cycles();
  cpuTime_.restart(now);
  lookOnceASecond(now);
}

void Poller::wait(int milliseconds) {
  sources_.wait(milliseconds, [this](int fd) {
    if (fd == shared_.epoch.wakeFd(number_))
      shared_.epoch.drain(number_);
    else if (fd == uplink_.wakeFd)
      heatUplink();
  });
}

void Poller::setTimer(uint64_t until, uint64_t now) {
  const uint64_t wait = until > now ? until - now : 1;
  const uint64_t seconds = wait / hz_;
  itimerspec alarm{};
  alarm.it_value.tv_sec = static_cast<time_t>(seconds);
  // Never 0, which would stop the timer.
  alarm.it_value.tv_nsec = static_cast<long>((wait - seconds * hz_) * 1000000000 / hz_ + 1);
  ::timerfd_settime(timer_.get(), 0, &alarm, nullptr);
}

}  // namespace vdpa::vswitch
