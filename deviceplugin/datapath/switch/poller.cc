// See the header.
#include "deviceplugin/datapath/switch/poller.h"

#include <pthread.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_pause.h>
#include <rte_vhost.h>
#include <sched.h>
#include <sys/epoll.h>

#include "common/errors.h"
#include "common/log.h"

namespace vdpa {
namespace {

// How long without a packet before a poller sleeps: longer than the gaps of a busy sender, far
// shorter than what an operator would see as load.
constexpr uint64_t kIdleMicroseconds = 100;
// A sleeping poller looks around this often even if nobody wakes it.
constexpr int kLongestSleep = 1000;  // ms

}  // namespace

Poller::Poller(unsigned number, std::optional<unsigned> cpu, Publisher& publisher, MacTable& table,
               rte_mempool* pool, Uplink* uplink, StalledCalls& stalled)
    : number_(number),
      cpu_(cpu),
      publisher_(publisher),
      pool_(pool),
      uplink_(uplink),
      guard_(stalled),
      forwarder_(table, number, uplink ? uplink->port() : 0, static_cast<uint16_t>(number), pool,
                 guard_),
      thread_([this] { run(); }) {}

Poller::~Poller() {
  stop_ = true;
  // The publisher's wake descriptor is the poller's alarm clock, whatever the reason.
  ::eventfd_write(publisher_.wakeFd(number_), 1);
  thread_.join();
}

void Poller::run() {
  ::pthread_setname_np(::pthread_self(), fmt::format("poller-{}", number_).c_str());
  if (cpu_) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(*cpu_, &cpus);
    if (::pthread_setaffinity_np(::pthread_self(), sizeof cpus, &cpus) != 0)
      spdlog::warn("cannot pin poller {} to CPU {}; it runs where the kernel puts it", number_,
                   *cpu_);
  }
  if (rte_thread_register() != 0) spdlog::warn("poller {} has no packet cache of its own", number_);

  try {
    guard_.begin();
  } catch (const std::system_error& error) {
    spdlog::warn("poller {} can be stalled by a pod: {}", number_, error.what());
  }

  const uint64_t hz = rte_get_tsc_hz();
  const uint64_t patience = hz / 1000000 * kIdleMicroseconds;
  uint64_t lastPacket = rte_rdtsc();
  while (!stop_.load(std::memory_order_relaxed)) {
    const Snapshot& snapshot = publisher_.acquire(number_);
    guard_.follow(snapshot);
    const uint64_t now = rte_rdtsc();
    const auto seconds = static_cast<uint32_t>(now / hz);
    if (pollOnce(snapshot, seconds)) {
      lastPacket = now;
    } else if (now - lastPacket > patience) {
      sleep(snapshot, seconds);
      lastPacket = rte_rdtsc();
    } else {
      rte_pause();
    }
  }
  rte_thread_unregister();
}

bool Poller::pollOnce(const Snapshot& snapshot, uint32_t seconds) {
  rte_mbuf* frames[Forwarder::kBurst];
  bool any = false;
  for (const TxQueue& queue : snapshot.work[number_]) {
    if (guard_.left(queue.vid)) continue;
    const uint16_t count =
        rte_vhost_dequeue_burst(queue.vid, queue.queue, pool_, frames, Forwarder::kBurst);
    guard_.check(queue.vid);
    if (count == 0) continue;
    any = true;
    forwarder_.forward(snapshot, queue.port, queue.queue / 2, frames, count, seconds);
  }
  if (snapshot.uplink) {
    const uint16_t count = rte_eth_rx_burst(uplink_->port(), static_cast<uint16_t>(number_), frames,
                                            Forwarder::kBurst);
    if (count > 0) {
      any = true;
      forwarder_.forward(snapshot, kUplinkPort, static_cast<uint16_t>(number_), frames, count,
                         seconds);
    }
  }
  return any;
}

void Poller::notify(const Snapshot& snapshot, unsigned poller, bool enable) {
  for (const TxQueue& queue : snapshot.work[poller])
    rte_vhost_enable_guest_notification(queue.vid, queue.queue, enable);
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
  if (snapshot.uplink) watch(uplink_->wakeFd(number_), EPOLLIN);
  for (const TxQueue& queue : snapshot.work[number_])
    if (queue.kick >= 0) watch(queue.kick, EPOLLIN | EPOLLET);
}

void Poller::sleep(const Snapshot& snapshot, uint32_t seconds) {
  if (epollOf_ != snapshot.sequence) rebuildEpoll(snapshot);
  notify(snapshot, number_, true);
  if (snapshot.uplink) uplink_->armWake(number_);
  // Whatever came before the notifications were on would wake nobody.
  if (!pollOnce(snapshot, seconds)) {
    epoll_event events[16];
    int count = 0;
    guard_.rest();
    do count = ::epoll_wait(epoll_.get(), events, 16, kLongestSleep);
    while (count < 0 && errno == EINTR);  // the guard's last tick
    guard_.wake();
    for (int i = 0; i < count; ++i)
      if (events[i].data.fd == publisher_.wakeFd(number_)) publisher_.drain(number_);
  }
  if (snapshot.uplink) uplink_->disarmWake(number_);
  // The snapshot may be an old one by now, but nobody frees it, or what it names, before this
  // poller acquires the next.
  notify(snapshot, number_, false);
}

}  // namespace vdpa
