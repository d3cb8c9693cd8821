#include "deviceplugin/datapath/worker/engines/vhost_user_engine.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/event_loop.h"
#include "common/unix_socket.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/engines/event_fd.h"
#include "deviceplugin/datapath/worker/protocol/memory_table.h"
#include "deviceplugin/datapath/worker/protocol/message.h"
#include "deviceplugin/datapath/worker/protocol/protocol_error.h"
#include "deviceplugin/datapath/worker/protocol/ring_position.h"
#include "deviceplugin/datapath/worker/protocol/vhost_device.h"
#include "deviceplugin/datapath/worker/protocol/vhost_user_protocol.h"

namespace vdpa::worker {
namespace {

// A new worker's engine is still starting: it isn't reported down until the last back-off.
constexpr std::chrono::milliseconds kNewBackOff{1};
constexpr std::chrono::milliseconds kFirstBackOff{10};
constexpr std::chrono::milliseconds kMaxBackOff{200};

}  // namespace

VhostUserEngine::VhostUserEngine(EventLoop& loop, std::string path, Events events)
    : loop_(loop),
      path_(std::move(path)),
      events_(std::move(events)),
      reconnect_(loop, [this] { connect(); }),
      backOff_(kNewBackOff) {
  reconnect_.start(std::chrono::milliseconds(0));
}

bool VhostUserEngine::running() const {
  return std::any_of(handed_.begin(), handed_.end(),
                     [](const Handed& ring) { return ring.given && ring.enabled; });
}

void VhostUserEngine::follow(VhostDevice* device) {
  device_ = device;
  handed_.assign(device->rings.size(), {});
}

void VhostUserEngine::release() {
  device_ = nullptr;
  if (!handedMemory_) return;  // the engine has nothing of this pod
  forgetLink();
  reconnectLater();
}

void VhostUserEngine::update() {
  advance();
}

bool VhostUserEngine::settled() const {
  return !link_ || !learned_ || link_->idle();
}

void VhostUserEngine::connect() {
  try {
    link_ = std::make_unique<EngineLink>(
        loop_, connectUnix(path_),
        [this](const std::string& reason, bool refused) { lost(reason, refused); },
        [this] {
          if (!learned_) return;
          try {
            advance();
            if (settled() && device_) events_.settled();
          } catch (const ProtocolError& error) {
            events_.failed(error.what());
          }
        });
    learn();
  } catch (const std::system_error& error) {
    lost(error.what(), false);
  }
}

void VhostUserEngine::reconnectLater() {
  reconnect_.start(backOff_);
  // Never waits much longer than the engine was away.
  backOff_ = std::min(backOff_ * 5 / 4 + std::chrono::milliseconds(1), kMaxBackOff);
}

void VhostUserEngine::forgetLink() {
  link_.reset();
  learned_ = false;
  stopping_ = 0;
  handedMemory_.reset();
  handedFeatures_.reset();
  std::fill(handed_.begin(), handed_.end(), Handed{});
}

void VhostUserEngine::lost(const std::string& reason, bool refused) {
  if (device_) {
    for (size_t i = 0; i < handed_.size(); ++i)
      if (handed_[i].given) device_->rings[i].positionLost = true;
  }
  const bool coming = !limits_ && backOff_ < kMaxBackOff;
  forgetLink();
  reconnectLater();
  if (!refused && !coming && (up_ || reason != lastReason_)) {
    up_ = false;
    lastReason_ = reason;
    events_.state(false, reason);
  }
  if (!device_) return;
  try {
    if (refused) throw ProtocolError(reason);
    advance();  // finds the positions of rings that were being stopped
    events_.settled();
  } catch (const ProtocolError& error) {
    events_.failed(error.what());
  }
}

void VhostUserEngine::learn() {
  link_->ask(Request::GetFeatures, nullptr, 0, sizeof(uint64_t), [this](const Message& answer) {
    EngineLimits limits;
    limits.features = answer.as<uint64_t>();
    link_->ask(Request::GetProtocolFeatures, nullptr, 0, sizeof(uint64_t),
               [this, limits](const Message& second) mutable {
                 limits.protocolFeatures = second.as<uint64_t>();
                 const uint64_t use = limits.protocolFeatures &
                                      (protocol_feature::kMultiqueue | protocol_feature::kReplyAck);
                 link_->tell(Request::SetProtocolFeatures, &use, sizeof use);
                 link_->tell(Request::SetOwner, nullptr, 0);
                 if (use != (protocol_feature::kMultiqueue | protocol_feature::kReplyAck))
                   return lost("the engine lacks the protocol features MQ and REPLY_ACK", false);
                 link_->ask(Request::GetQueueNum, nullptr, 0, sizeof(uint64_t),
                            [this, limits](const Message& third) mutable {
                              limits.queuePairs = static_cast<uint32_t>(
                                  std::min<uint64_t>(third.as<uint64_t>(), 128));
                              limits_ = limits;
                              learned();
                            });
               });
  });
}

void VhostUserEngine::learned() {
  learned_ = true;
  backOff_ = kFirstBackOff;
  lastReason_.clear();
  if (!std::exchange(up_, true)) events_.state(true, {});
  // The link is idle now and continues with advance().
}

void VhostUserEngine::advance() {
  if (!device_) return;
  if (!learned_) {
    for (uint32_t i = 0; i < device_->rings.size(); ++i)
      if (!device_->rings[i].started) findPosition(i);
    return;
  }
  if (stopping_ == 0) stopRings();
  if (stopping_ > 0) return;  // their answers continue here

  const bool wanted = std::any_of(device_->rings.begin(), device_->rings.end(),
                                  [this](const Vring& ring) { return device_->runs(ring); });
  if (wanted) shareMemory();
  if (!learned_) return;
  for (uint32_t i = 0; i < device_->rings.size(); ++i) {
    if (!device_->runs(device_->rings[i])) continue;
    if (handed_[i].given)
      refreshRing(i);
    else
      giveRing(i);
  }
  if (wakeRings_ && link_->idle()) wake();
}

void VhostUserEngine::stopRings() {
  const bool restart = (handedMemory_ && handedMemory_ != device_->memory) ||
                       (handedFeatures_ && *handedFeatures_ != device_->features);
  for (uint32_t i = 0; i < handed_.size(); ++i) {
    if (!handed_[i].given || (!restart && device_->runs(device_->rings[i]))) continue;
    ++stopping_;
    const VringState state{i, 0};
    link_->ask(Request::GetVringBase, &state, sizeof state, sizeof state,
               [this, i](const Message& answer) {
                 uint32_t base = answer.as<VringState>().value & 0xffff;
                 // rte_vhost gives one position for both sides of a packed ring: they are equal
                 // once it has stopped.
                 if (device_->packed()) base |= base << 16;
                 device_->rings[i].base = base;
                 handed_[i] = {};
                 --stopping_;
               });
  }
}

void VhostUserEngine::shareMemory() {
  if (const uint64_t missing = device_->features & ~limits_->features; missing != 0)
    throw protocolError("the engine no longer has the features {:#x} that the driver uses",
                        missing);
  if (handedFeatures_ != device_->features) {
    const uint64_t features = device_->features | feature::kProtocolFeatures;
    set(Request::SetFeatures, &features, sizeof features);
    handedFeatures_ = device_->features;
  }
  if (handedMemory_ == device_->memory) return;
  if (handedMemory_ && handedMemory_->sameAddresses(*device_->memory)) {
    // rte_vhost compares only addresses and would keep the old files: only a new connection helps.
    forgetLink();
    return reconnectLater();
  }
  device_->memory->checkFiles();
  WireMemoryTable table{};
  std::vector<SharedFd> files;
  for (const MemoryRegion& region : device_->memory->regions()) {
    table.regions[table.regionCount++] = region.wire;
    files.push_back(region.file);
  }
  set(Request::SetMemTable, &table,
      offsetof(WireMemoryTable, regions) + files.size() * sizeof(WireRegion), files);
  handedMemory_ = device_->memory;
}

void VhostUserEngine::giveRing(uint32_t index) {
  Vring& ring = device_->rings[index];
  if (ring.positionLost) wakeRings_ = true;
  findPosition(index);
  sendState(Request::SetVringNum, index, ring.size);
  sendState(Request::SetVringBase, index, ring.base);
  VringAddresses addresses = *ring.addresses;
  addresses.index = index;
  addresses.log = 0;
  set(Request::SetVringAddr, &addresses, sizeof addresses);
  sendDescriptor(Request::SetVringCall, index, ring.call);
  if (ring.error) sendDescriptor(Request::SetVringErr, index, ring.error);
  sendDescriptor(Request::SetVringKick, index, ring.kick);
  sendState(Request::SetVringEnable, index, device_->enabled(ring) ? 1 : 0);
  handed_[index] = {true, device_->enabled(ring), ring.kick, ring.call, ring.error};
}

void VhostUserEngine::refreshRing(uint32_t index) {
  const Vring& ring = device_->rings[index];
  Handed& handed = handed_[index];
  const auto renew = [&](Request request, const SharedFd& now, SharedFd& before) {
    if (now == before) return;
    sendDescriptor(request, index, now);
    before = now;
  };
  renew(Request::SetVringCall, ring.call, handed.call);
  renew(Request::SetVringErr, ring.error, handed.error);
  renew(Request::SetVringKick, ring.kick, handed.kick);
  if (device_->enabled(ring) == handed.enabled) return;
  handed.enabled = !handed.enabled;
  sendState(Request::SetVringEnable, index, handed.enabled ? 1 : 0);
}

void VhostUserEngine::sendDescriptor(Request request, uint32_t index, const SharedFd& descriptor) {
  const uint64_t value = index | (descriptor ? 0 : kVringNoDescriptor);
  set(request, &value, sizeof value,
      descriptor ? std::vector<SharedFd>{descriptor} : std::vector<SharedFd>{});
}

void VhostUserEngine::sendState(Request request, uint32_t index, uint32_t value) {
  const VringState state{index, value};
  set(request, &state, sizeof state);
}

void VhostUserEngine::set(Request request, const void* payload, size_t size,
                          std::vector<SharedFd> descriptors) {
  link_->set(request, payload, size, std::move(descriptors));
}

void VhostUserEngine::findPosition(uint32_t index) {
  Vring& ring = device_->rings[index];
  if (!ring.positionLost) return;
  ring.base = recoverPosition(*device_, index);
  ring.positionLost = false;
}

// A kick or an interrupt may have been lost with the engine: makes both sides check their rings.
void VhostUserEngine::wake() {
  wakeRings_ = false;
  for (size_t i = 0; i < handed_.size(); ++i) {
    if (!handed_[i].given) continue;
    signalEvent(handed_[i].kick);
    signalEvent(handed_[i].call);
  }
}

}  // namespace vdpa::worker
