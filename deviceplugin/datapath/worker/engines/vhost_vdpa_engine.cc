#include "deviceplugin/datapath/worker/engines/vhost_vdpa_engine.h"

#include <linux/virtio_config.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/errors.h"
#include "common/event_loop.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/ring_position.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/worker/engines/control_queue.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/engines/event_fd.h"
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_device.h"

namespace vdpa::worker {

namespace feature = vhost_user::feature;
using vhost_user::bit;
using vhost_user::MemoryRegion;
using vhost_user::MemoryTable;
using vhost_user::ProtocolError;
using vhost_user::protocolError;
using vhost_user::recoverPosition;
using vhost_user::Vring;
using vhost_user::VringAddresses;
using vhost_user::WireRegion;

namespace {

constexpr std::chrono::milliseconds kMaxBackOff{200};
constexpr uint64_t kAccessPlatform = bit(VIRTIO_F_ACCESS_PLATFORM);

// Features that the front-end itself provides to its driver, so the device needn't have them.
constexpr uint64_t kFrontEnds =
    feature::kControlQueue | feature::kControlReceive | feature::kGuestAnnounce;
constexpr uint64_t kControlOfDevice = feature::kControlQueue | feature::kMultiqueue;

bool steers(const VhostVdpaDevice::Facts& facts) {
  return (facts.features & kControlOfDevice) == kControlOfDevice && facts.virtqueues >= 5;
}

// The device's address for the pod's address of a part of a ring.
uint64_t translate(const MemoryTable& memory, uint64_t address) {
  const WireRegion& wire = memory.at(address, 1).wire;
  return wire.guestAddress + (address - wire.userAddress);
}

}  // namespace

EngineLimits limitsOf(const VhostVdpaDevice::Facts& facts, uint32_t mostPairs) {
  EngineLimits limits;
  limits.queuePairs = 1;
  if (steers(facts))
    limits.queuePairs = std::clamp<uint32_t>(
        std::min<uint32_t>(facts.config.maxQueuePairs, (facts.virtqueues - 1) / 2), 1, mostPairs);
  limits.features =
      (facts.features & ~(kControlOfDevice | kFrontEnds)) | kFrontEnds | feature::kProtocolFeatures;
  if (limits.queuePairs > 1) limits.features |= feature::kMultiqueue;
  limits.queueSize = facts.queueSize;
  if (!facts.config.mac.isZero()) limits.mac = facts.config.mac;
  if ((facts.features & feature::kMtu) && facts.config.mtu >= 68) limits.mtu = facts.config.mtu;
  return limits;
}

uint64_t deviceFeatures(const VhostVdpaDevice::Facts& facts, uint64_t driverFeatures,
                        uint32_t pairs) {
  uint64_t features = driverFeatures & facts.features & ~kWorkersFeatures &
                      ~(kControlOfDevice | kFrontEnds | feature::kProtocolFeatures);
  features |= facts.features & kAccessPlatform;
  if (pairs > 1 && steers(facts)) features |= kControlOfDevice;
  return features;
}

uint64_t freeIova(const VhostVdpaDevice::Facts& facts, const MemoryTable& memory, uint64_t size) {
  // From the top down: the candidates lie below the range's end and below each region.
  std::vector<std::pair<uint64_t, uint64_t>> regions;  // first and last address
  for (const auto& region : memory.regions())
    regions.emplace_back(region.wire.guestAddress,
                         region.wire.guestAddress + (region.wire.size - 1));
  std::sort(regions.rbegin(), regions.rend());
  const uint64_t page = 4096;
  // The lowest page stays free: elsewhere an address of 0 means an error.
  const uint64_t lowest = std::max(facts.firstIova, page);
  uint64_t end = std::min(facts.lastIova, UINT64_MAX - page);  // the last address that is free
  for (size_t i = 0; i <= regions.size(); ++i) {
    const uint64_t below = i < regions.size() ? regions[i].second : lowest - 1;
    const uint64_t start = (end - (size - 1)) / page * page;
    if (end >= size && start > below && start >= lowest && start <= end) return start;
    if (i == regions.size() || regions[i].first <= lowest) break;
    end = std::min(end, regions[i].first - 1);
  }
  throw protocolError("the pod's memory leaves no address free for the device's control queue");
}

VhostVdpaEngine::VhostVdpaEngine(EventLoop& loop, std::string path, uint64_t inode,
                                 uint32_t mostPairs, Events events)
    : loop_(loop),
      path_(std::move(path)),
      inode_(inode),
      mostPairs_(mostPairs),
      events_(std::move(events)),
      opening_(loop, [this] { open(); }) {
  opening_.start(std::chrono::milliseconds(0));
}

void VhostVdpaEngine::setUp(bool up, const std::string& reason) {
  if (up == up_ && reason == lastReason_) return;
  up_ = up;
  lastReason_ = reason;
  events_.state(up, reason);
}

void VhostVdpaEngine::open() {
  try {
    watchNode();
    if (struct stat node; inode_ == 0 && ::stat(path_.c_str(), &node) == 0) inode_ = node.st_ino;
    if (vanished()) return gone(path_ + " is gone");
    kernel_ = std::make_unique<VhostVdpaDevice>(path_, inode_);
    limits_ = limitsOf(kernel_->facts(), mostPairs_);
    setUp(unserved_.empty(), unserved_);
  } catch (const std::system_error& error) {
    kernel_.reset();
    if (vanished()) return gone(path_ + " is gone");
    opening_.start(backOff_);
    backOff_ = std::min(backOff_ * 2, kMaxBackOff);
    setUp(false, error.what());
  }
}

// `vdpa dev del` removes the node first and then waits until no process has it open.
void VhostVdpaEngine::watchNode() {
  if (inotify_) return;
  inotify_ = UniqueFd(
      checked(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK), "cannot watch for the end of {}", path_));
  const std::string directory = directoryOf(path_);
  checked(::inotify_add_watch(inotify_.get(), directory.c_str(), IN_DELETE | IN_MOVED_FROM),
          "cannot watch {}", directory);
  nodeWatch_ = EventLoop::Watch(loop_, inotify_.get(), EPOLLIN, [this](uint32_t) {
    char events[4096];
    while (::read(inotify_.get(), events, sizeof events) > 0) {
    }
    if (vanished()) gone(path_ + " is gone");
  });
}

// The node with this name may now be another pod's: a new node has another inode.
bool VhostVdpaEngine::vanished() const {
  if (inode_ == 0) return false;  // it has not appeared yet
  struct stat node;
  if (::stat(path_.c_str(), &node) == 0) return node.st_ino != inode_;
  return errno == ENOENT;
}

void VhostVdpaEngine::gone(const std::string& reason) {
  opening_.cancel();
  nodeWatch_.reset();
  inotify_.reset();
  running_ = false;
  started_ = {};
  kernel_.reset();
  control_.reset();
  setUp(false, reason);
  if (device_) events_.failed(reason);
}

void VhostVdpaEngine::release() {
  device_ = nullptr;
  if (!kernel_) return;
  try {
    stop(false);
  } catch (const std::system_error&) {
    // Closing and reopening it cleans up as well.
    kernel_.reset();
    running_ = false;
    started_ = {};
    control_.reset();
    opening_.start(std::chrono::milliseconds(0));
  }
}

// The rings that the device can run: those of every pair with two running rings, up to the first
// gap.
std::vector<bool> VhostVdpaEngine::wantedRings() const {
  std::vector<bool> wanted(device_->rings.size());
  const auto runs = [this](size_t ring) { return device_->runs(device_->rings[ring]); };
  for (size_t ring = 0; ring + 1 < wanted.size() && runs(ring) && runs(ring + 1); ring += 2)
    wanted[ring] = wanted[ring + 1] = true;
  return wanted;
}

// A device spreads its packets over the first pairs. Pairs after a gap can't be among them, nor
// pairs that are enabled before they run or, without PROTOCOL_FEATURES, always.
uint16_t VhostVdpaEngine::wantedPairs() const {
  const auto used = [this](size_t ring) {
    return device_->runs(device_->rings[ring]) && device_->enabled(device_->rings[ring]);
  };
  size_t ring = 0;
  while (ring + 1 < device_->rings.size() && used(ring) && used(ring + 1)) ring += 2;
  return static_cast<uint16_t>(ring / 2);
}

void VhostVdpaEngine::update() {
  if (!device_) return;
  if (!kernel_) {
    if (std::any_of(device_->rings.begin(), device_->rings.end(),
                    [this](const Vring& ring) { return device_->runs(ring); }))
      throw protocolError("the device is not available: {}", lastReason_);
    return;
  }
  try {
    const auto rings = wantedRings();
    const bool any = rings[0];
    if (running_ && started_.memory != device_->memory && rings == started_.rings &&
        started_.features == device_->features && ringsStay())
      remap();
    const bool other = running_ && (rings != started_.rings || started_.memory != device_->memory ||
                                    started_.features != device_->features);
    if (running_ && (other || !any)) stop(true);
    // Until its first ring is enabled, the driver is still setting up.
    if (any && !running_ && wantedPairs() > 0) {
      start(rings);
      unserved_.clear();
      setUp(true, "");
    }
    if (running_) refresh();
  } catch (const std::system_error& error) {
    running_ = false;
    started_ = {};
    kernel_.reset();  // its state is unknown
    control_.reset();
    opening_.start(std::chrono::milliseconds(0));
    // Either the pod's own fault, or the device is unusable.
    if (const int code = error.code().value(); code != EFAULT && code != EINVAL) {
      unserved_ = error.what();
      setUp(false, unserved_);
    }
    throw ProtocolError(error.what());
  }
}

void VhostVdpaEngine::start(const std::vector<bool>& rings) {
  const auto& facts = kernel_->facts();
  const MemoryTable& memory = *device_->memory;
  const uint32_t pairs = limits_->queuePairs;
  memory.checkFiles();
  kernel_->negotiate(deviceFeatures(facts, device_->features, pairs));
  control_.reset();
  kernel_->beginMapping();
  for (const auto& region : memory.regions())
    kernel_->map(region.wire.guestAddress, region.wire.size, region.file->get(),
                 region.wire.fileOffset);
  if (pairs > 1 && steers(facts)) {
    // After the device's data queues, not the pod's.
    control_ = std::make_unique<ControlQueue>(2u * facts.config.maxQueuePairs,
                                              freeIova(facts, memory, ControlQueue::kMemory),
                                              device_->packed());
    kernel_->mapOwn(control_->queue().descriptors, ControlQueue::kMemory, control_->memory());
  }
  kernel_->endMapping();
  startQueues(rings);
  started_.memory = device_->memory;
  started_.features = device_->features;
  started_.rings = rings;
  started_.pairs = 0;
  running_ = true;
  for (size_t i = 0; i < rings.size(); ++i)
    if (rings[i]) signalEvent(device_->rings[i].kick);  // for buffers from before the start
}

void VhostVdpaEngine::startQueues(const std::vector<bool>& rings) {
  const MemoryTable& memory = *device_->memory;
  started_.kicks.assign(rings.size(), nullptr);
  started_.calls.assign(rings.size(), nullptr);
  started_.addresses.assign(rings.size(), {});
  for (uint32_t i = 0; i < rings.size(); ++i) {
    if (!rings[i]) continue;
    Vring& ring = device_->rings[i];
    if (ring.positionLost) {
      ring.base = recoverPosition(*device_, i);
      ring.positionLost = false;
    }
    uint32_t base = ring.base;
    // Front-ends that have one position for both sides of a packed ring leave out the upper half.
    if (device_->packed() && base >> 16 == 0) base |= base << 16;
    kernel_->setQueue({i, ring.size, base, translate(memory, ring.addresses->descriptors),
                       translate(memory, ring.addresses->available),
                       translate(memory, ring.addresses->used), ring.kick ? ring.kick->get() : -1,
                       ring.call ? ring.call->get() : -1});
    kernel_->enable(i);
    started_.addresses[i] = *ring.addresses;
    started_.kicks[i] = ring.kick;
    started_.calls[i] = ring.call;
  }
  if (control_) {
    kernel_->setQueue(control_->queue());
    kernel_->enable(control_->queue().index);
  }
  kernel_->run();
}

// Whether the running rings are at the same place in the new memory, so that the device needn't
// stop: many can't resume at their old position (vp_vdpa).
bool VhostVdpaEngine::ringsStay() const {
  const MemoryTable& memory = *device_->memory;
  const auto stays = [&](uint64_t before, uint64_t now) {
    const MemoryRegion& region = started_.memory->at(before, 1);
    return memory.has(region) && translate(memory, now) == translate(*started_.memory, before);
  };
  for (size_t i = 0; i < started_.rings.size(); ++i) {
    if (!started_.rings[i]) continue;
    const VringAddresses& before = started_.addresses[i];
    const VringAddresses& now = *device_->rings[i].addresses;
    if (!stays(before.descriptors, now.descriptors) || !stays(before.available, now.available) ||
        !stays(before.used, now.used))
      return false;
  }
  if (!control_) return true;
  const uint64_t own = control_->queue().descriptors;
  return std::none_of(memory.regions().begin(), memory.regions().end(), [&](const auto& region) {
    const WireRegion& wire = region.wire;
    return wire.guestAddress < own + ControlQueue::kMemory && own < wire.guestAddress + wire.size;
  });
}

// Unmaps removed memory and maps new memory while the device runs.
void VhostVdpaEngine::remap() {
  const MemoryTable& memory = *device_->memory;
  memory.checkFiles();
  kernel_->beginMapping();
  for (const auto& region : started_.memory->regions())
    if (!memory.has(region)) kernel_->unmap(region.wire.guestAddress);
  for (const auto& region : memory.regions())
    if (!started_.memory->has(region))
      kernel_->map(region.wire.guestAddress, region.wire.size, region.file->get(),
                   region.wire.fileOffset);
  kernel_->endMapping();
  started_.memory = device_->memory;
  for (size_t i = 0; i < started_.rings.size(); ++i)
    if (started_.rings[i]) started_.addresses[i] = *device_->rings[i].addresses;
}

// Applies changes that are possible while it runs.
void VhostVdpaEngine::refresh() {
  for (uint32_t i = 0; i < started_.rings.size(); ++i) {
    if (!started_.rings[i]) continue;
    const Vring& ring = device_->rings[i];
    if (ring.call != started_.calls[i]) {
      kernel_->setCall(i, ring.call ? ring.call->get() : -1);
      started_.calls[i] = ring.call;
      signalEvent(ring.call);  // one may have been lost in between
    }
    if (ring.kick != started_.kicks[i]) {
      kernel_->setKick(i, ring.kick ? ring.kick->get() : -1);
      started_.kicks[i] = ring.kick;
      signalEvent(ring.kick);
    }
  }
  const uint16_t pairs = std::max<uint16_t>(1, wantedPairs());
  if (!control_ || pairs == started_.pairs) return;
  control_->usePairs(pairs);
  started_.pairs = pairs;
}

void VhostVdpaEngine::stop(bool keepPositions) {
  if (running_ && keepPositions) {
    const bool suspended = kernel_->canSuspend();
    if (suspended) kernel_->suspend();
    for (uint32_t i = 0; i < started_.rings.size(); ++i) {
      if (!started_.rings[i]) continue;
      if (const auto base = suspended ? kernel_->base(i) : std::nullopt)
        device_->rings[i].base = *base;
      else
        device_->rings[i].positionLost = true;  // to be found in the ring once it has stopped
    }
  }
  kernel_->reset();
  kernel_->unmapAll();
  control_.reset();
  if (running_ && keepPositions) {
    for (uint32_t i = 0; i < started_.rings.size(); ++i) {
      Vring& ring = device_->rings[i];
      if (!started_.rings[i] || !ring.positionLost) continue;
      ring.base = recoverPosition(*device_, i);
      ring.positionLost = false;
    }
  }
  running_ = false;
  started_ = {};
}

}  // namespace vdpa::worker
