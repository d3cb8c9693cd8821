#include "deviceplugin/datapath/switch/poller.h"

#include <pthread.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_pause.h>
#include <rte_vhost.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <optional>
#include <system_error>

#include "common/errors.h"
#include "common/log.h"
#include "common/serving_page.h"
#include "deviceplugin/datapath/switch/mac_table.h"
#include "deviceplugin/datapath/switch/publisher.h"
#include "deviceplugin/datapath/switch/rate_limit.h"
#include "deviceplugin/datapath/switch/snapshot.h"
#include "deviceplugin/datapath/switch/stalled_calls.h"
#include "deviceplugin/datapath/switch/uplink.h"

namespace vdpa::vswitch {
namespace {

void charge(RateLimit& limit, rte_mbuf** frames, uint16_t count, uint64_t now) {
  uint64_t bytes = 0;
  for (uint16_t i = 0; i < count; ++i) bytes += frames[i]->pkt_len;
  limit.charge(bytes, now);
}

// A poller sleeps after this long without a packet: longer than the gaps of a busy sender, far
// shorter than an operator would notice as load.
constexpr uint64_t kIdlePerSecond = 10000;  // 100 us
// A poller stays awake for shorter waits: falling asleep and waking take as long.
constexpr uint64_t kShortestSleepPerSecond = 50000;  // 20 us
// A sleeping poller checks its queues this often even without a wake-up.
constexpr int kMaxSleep = 1000;  // ms

}  // namespace

Poller::Poller(unsigned number, std::optional<unsigned> cpu, Publisher& publisher, MacTable& table,
               rte_mempool* pool, Uplink* uplink, StalledCalls& stalled, ServingPage::Cell& serving)
    : number_(number),
      cpu_(cpu),
      publisher_(publisher),
      pool_(pool),
      uplink_(uplink),
      guard_(stalled),
      serving_(serving),
      forwarder_(table, number, uplink ? uplink->port() : 0, static_cast<uint16_t>(number), pool,
                 guard_, serving),
      hz_(rte_get_tsc_hz()),
      timer_(checked(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "cannot create a timer")),
      thread_([this] { run(); }) {}

Poller::~Poller() {
  stop_ = true;
  // The publisher's wake descriptor ends the poller's sleep, for any reason.
  ::eventfd_write(publisher_.wakeFd(number_), 1);
  thread_.join();
}

std::chrono::nanoseconds Poller::busy() const {
  return std::chrono::nanoseconds(
      static_cast<int64_t>(1e9 * static_cast<double>(busy_.get()) / static_cast<double>(hz_)));
}

void Poller::run() {
  ::pthread_setname_np(::pthread_self(), fmt::format("poller-{}", number_).c_str());
  if (cpu_) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(*cpu_, &cpus);
    if (::pthread_setaffinity_np(::pthread_self(), sizeof cpus, &cpus) != 0)
      log::warn("cannot pin poller {} to CPU {}; it runs where the kernel puts it", number_, *cpu_);
  }
  noteCrashesIn(serving_);
  if (rte_thread_register() != 0) log::warn("poller {} has no packet cache of its own", number_);

  try {
    guard_.begin();
  } catch (const std::system_error& error) {
    log::warn("poller {} can be stalled by a pod: {}", number_, error.what());
  }

  lastUnlimited_ = rte_rdtsc();
  while (!stop_.load(std::memory_order_relaxed)) {
    const Snapshot& snapshot = publisher_.acquire(number_);
    guard_.follow(snapshot);
    const uint64_t now = rte_rdtsc();
    const Pass pass = pollOnce(snapshot, now);
    if (pass.frames) {
      busy_.add(rte_rdtsc() - now);
      continue;
    }
    if (idle(pass, now))
      sleep(snapshot);
    else
      rte_pause();
  }
  rte_thread_unregister();
}

// Whether to sleep after a pass without frames.
bool Poller::idle(const Pass& pass, uint64_t now) const {
  const uint64_t timeout = hz_ / kIdlePerSecond;
  if (now - lastUnlimited_ < timeout) return false;
  // The last frames of a rate-limited port don't predict when more may be taken.
  if (pass.opens != UINT64_MAX) return pass.opens > now + hz_ / kShortestSleepPerSecond;
  return now - lastLimited_ >= timeout;
}

Poller::Pass Poller::pollOnce(const Snapshot& snapshot, uint64_t now) {
  const auto seconds = static_cast<uint32_t>(now / hz_);
  rte_mbuf* frames[Forwarder::kBurst];
  Pass pass;
  for (const TxQueue& queue : snapshot.work[number_]) {
    if (guard_.left(queue.vid)) continue;
    uint16_t burst = Forwarder::kBurst;
    if (queue.limit) [[unlikely]] {
      if (!queue.limit->open(now)) {
        pass.opens = std::min(pass.opens, queue.limit->paidAt());
        continue;
      }
      burst = queue.limit->burst();
    }
    serving_.begin(queue.port, queue.queue);
    const uint16_t count = rte_vhost_dequeue_burst(queue.vid, queue.queue, pool_, frames, burst);
    serving_.end();
    guard_.check(queue.vid);
    if (count == 0) continue;
    pass.frames = true;
    if (queue.limit) [[unlikely]]
      charge(*queue.limit, frames, count, now);
    else
      pass.unlimited = true;
    forwarder_.forward(snapshot, queue.port, queue.queue / 2, frames, count, seconds);
  }
  if (snapshot.uplink) {
    const uint16_t count = rte_eth_rx_burst(uplink_->port(), static_cast<uint16_t>(number_), frames,
                                            Forwarder::kBurst);
    if (count > 0) {
      pass.frames = pass.unlimited = true;
      forwarder_.forward(snapshot, kUplinkPort, static_cast<uint16_t>(number_), frames, count,
                         seconds);
    }
  }
  if (pass.frames) (pass.unlimited ? lastUnlimited_ : lastLimited_) = now;
  return pass;
}

void Poller::wakeAt(uint64_t time, uint64_t now) {
  const uint64_t cycles = time > now ? time - now : 1;
  const uint64_t seconds = cycles / hz_;
  itimerspec alarm{};
  alarm.it_value.tv_sec = static_cast<time_t>(seconds);
  // Never 0, which would stop the timer.
  alarm.it_value.tv_nsec = static_cast<long>((cycles - seconds * hz_) * 1000000000 / hz_ + 1);
  ::timerfd_settime(timer_.get(), 0, &alarm, nullptr);
}

// The kicks are watched edge-triggered: their counters are never read, so each kick is one event
// and no kick is lost.
void Poller::rebuildEpoll(const Snapshot& snapshot) {
  epollOf_ = snapshot.sequence;
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  const auto watch = [this](int fd, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  };
  watch(publisher_.wakeFd(number_), EPOLLIN);
  watch(timer_.get(), EPOLLIN | EPOLLET);  // not read either
  if (snapshot.uplink) watch(uplink_->wakeFd(number_), EPOLLIN);
  for (const TxQueue& queue : snapshot.work[number_])
    if (queue.kick >= 0) watch(queue.kick, EPOLLIN | EPOLLET);
}

void Poller::sleep(const Snapshot& snapshot) {
  if (epollOf_ != snapshot.sequence) rebuildEpoll(snapshot);
  const uint64_t now = rte_rdtsc();
  // A queue that waits for its port's limit is polled only once that opens: no notifications.
  uint64_t opens = UINT64_MAX;
  for (const TxQueue& queue : snapshot.work[number_])
    if (queue.limit && !queue.limit->open(now))
      opens = std::min(opens, queue.limit->paidAt());
    else
      rte_vhost_enable_guest_notification(queue.vid, queue.queue, true);
  if (snapshot.uplink) uplink_->armWake(number_);
  // Frames that came before the notifications were on cause no wake-up.
  const Pass pass = pollOnce(snapshot, now);
  opens = std::min(opens, pass.opens);
  if (!pass.frames) {
    if (opens != UINT64_MAX) wakeAt(opens, now);
    epoll_event events[16];
    int count = 0;
    guard_.rest();
    do count = ::epoll_wait(epoll_.get(), events, 16, kMaxSleep);
    while (count < 0 && errno == EINTR);  // the guard's last tick
    guard_.wake();
    for (int i = 0; i < count; ++i)
      if (events[i].data.fd == publisher_.wakeFd(number_)) publisher_.drain(number_);
  }
  if (snapshot.uplink) uplink_->disarmWake(number_);
  // The snapshot may be outdated by now, but it and its queues live until this poller acquires the
  // next.
  for (const TxQueue& queue : snapshot.work[number_])
    rte_vhost_enable_guest_notification(queue.vid, queue.queue, false);
  if (opens == UINT64_MAX) lastUnlimited_ = rte_rdtsc();
}

}  // namespace vdpa::vswitch
