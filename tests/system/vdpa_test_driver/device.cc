#define ALLOW_EXPERIMENTAL_API  // rte_dev_event_callback_process()
#include "tests/system/vdpa_test_driver/device.h"

#include <poll.h>
#include <rte_dev.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "tests/system/vdpa_test_driver/ring.h"

namespace vdpa_test {
namespace {

constexpr size_t kHeader = 12;  // bytes of virtio_net_hdr with VERSION_1 (virtio 1.2, 5.1.6)
constexpr unsigned kBurst = 64;

std::vector<uint8_t> gather(const Chain& chain) {
  std::vector<uint8_t> packet;
  for (const Piece& piece : chain.pieces)
    if (!piece.writable) packet.insert(packet.end(), piece.data, piece.data + piece.length);
  return packet;
}

// Copies the packet into the buffer. Returns how many bytes: all, or none if it is too small.
uint32_t scatter(const std::vector<uint8_t>& packet, const Chain& chain) {
  size_t room = 0, done = 0;
  for (const Piece& piece : chain.pieces) room += piece.writable ? piece.length : 0;
  if (room < packet.size()) return 0;
  for (const Piece& piece : chain.pieces) {
    if (!piece.writable) continue;
    const size_t part = std::min<size_t>(piece.length, packet.size() - done);
    std::memcpy(piece.data, packet.data() + done, part);
    done += part;
  }
  return static_cast<uint32_t>(done);
}

}  // namespace

Device::Device(Options options) : options_(std::move(options)), bell_(::eventfd(0, EFD_NONBLOCK)) {}

Device::~Device() {
  stop();
  ::close(bell_);
}

bool Device::start(int vid) {
  stop();
  if (starts_++ < options_.failingStarts) return false;
  std::lock_guard lock(mutex_);
  rte_vhost_memory* memory = nullptr;
  if (rte_vhost_get_mem_table(vid, &memory) != 0) return false;
  memory_.reset(memory);
  vid_ = vid;
  for (const uint16_t ring : enabled_) openRing(ring);
  running_ = true;
  thread_ = std::thread([this] { move(); });
  return true;
}

void Device::stop() {
  running_ = false;
  ::eventfd_write(bell_, 1);
  if (thread_.joinable()) thread_.join();
  std::lock_guard lock(mutex_);
  for (const auto& [number, ring] : rings_) ring->save();
  rings_.clear();
  memory_.reset();
}

void Device::setEnabled(uint16_t ring, bool enabled) {
  std::lock_guard lock(mutex_);
  if (const auto open = rings_.find(ring); open != rings_.end()) {
    open->second->save();
    rings_.erase(open);
  }
  enabled_.erase(ring);
  if (!enabled) return;
  enabled_.insert(ring);
  if (running_) openRing(ring);
  ::eventfd_write(bell_, 1);
}

void Device::forgetConnection() {
  stop();
  enabled_.clear();
}

Device::Counters Device::counters(uint16_t ring) {
  std::lock_guard lock(mutex_);
  return counters_[ring];
}

void Device::openRing(uint16_t ring) {
  if (auto opened = Ring::open(vid_, ring, *memory_)) rings_[ring] = std::move(opened);
}

void Device::move() {
  while (running_)
    if (!moveAll()) wait();
}

bool Device::moveAll() {
  std::lock_guard lock(mutex_);
  bool any = false;
  for (uint32_t pair = 0; pair < options_.queuePairs; ++pair)
    any |= forward(static_cast<uint16_t>(pair * 2 + 1), static_cast<uint16_t>(pair * 2));
  return any;
}

bool Device::forward(uint16_t from, uint16_t to) {
  const auto source = rings_.find(from), sink = rings_.find(to);
  if (source == rings_.end()) return false;
  Chain sent, buffer;
  unsigned taken = 0, given = 0;
  for (; taken < kBurst && source->second->next(sent); ++taken) {
    auto packet = gather(sent);
    source->second->finish(sent, 0);
    if (packet.size() < kHeader) continue;
    count(from, packet.size() - kHeader);
    std::memset(packet.data(), 0, kHeader);
    packet[10] = 1;                                                     // num_buffers
    if (sink == rings_.end() || !sink->second->next(buffer)) continue;  // lost, as on any wire
    sink->second->finish(buffer, scatter(packet, buffer));
    count(to, packet.size() - kHeader);
    ++given;
  }
  if (taken > 0) source->second->interrupt();
  if (given > 0) sink->second->interrupt();
  return taken > 0;
}

void Device::count(uint16_t ring, uint64_t bytes) {
  ++counters_[ring].packets;
  counters_[ring].bytes += bytes;
  ++moved_;
  if (moved_ == options_.crashAfter) ::_exit(99);
  if (moved_ == options_.unplugAfter)
    rte_dev_event_callback_process(options_.name.c_str(), RTE_DEV_EVENT_REMOVE);
}

void Device::wait() {
  std::vector<pollfd> fds{{bell_, POLLIN, 0}};
  {
    std::lock_guard lock(mutex_);
    for (const auto& [number, ring] : rings_)
      if (number % 2 == 1) fds.push_back({ring->kickFd(), POLLIN, 0});
  }
  ::poll(fds.data(), fds.size(), -1);
  for (const pollfd& fd : fds) {
    if (!(fd.revents & POLLIN)) continue;
    uint64_t ignored;
    [[maybe_unused]] const ssize_t count = ::read(fd.fd, &ignored, sizeof ignored);
  }
}

}  // namespace vdpa_test
