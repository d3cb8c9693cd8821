#include "deviceplugin/datapath/worker/engines/vhost_user_engine.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "common/virtio_features.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/message_socket.h"
#include "deviceplugin/datapath/vhost_user/net_config.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/ring_position.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/worker/engines/engine.h"
#include "deviceplugin/datapath/worker/engines/event_fd.h"

namespace vdpa::worker {

namespace feature = vhost_user::feature;
namespace protocol_feature = vhost_user::protocol_feature;
using vhost_user::ConfigHeader;
using vhost_user::kBackendConfigChange;
using vhost_user::kLinkUp;
using vhost_user::kVringNoDescriptor;
using vhost_user::MemoryRegion;
using vhost_user::Message;
using vhost_user::MessageSocket;
using vhost_user::NetConfig;
using vhost_user::ProtocolError;
using vhost_user::protocolError;
using vhost_user::recoverPosition;
using vhost_user::Request;
using vhost_user::SharedFd;
using vhost_user::VhostDevice;
using vhost_user::Vring;
using vhost_user::VringAddresses;
using vhost_user::VringState;
using vhost_user::WireMemoryTable;
using vhost_user::WireRegion;

namespace {

// A new worker's engine is still starting: it isn't reported down until the last back-off.
constexpr std::chrono::milliseconds kNewBackOff{1};
constexpr std::chrono::milliseconds kFirstBackOff{10};
constexpr std::chrono::milliseconds kMaxBackOff{200};

constexpr uint64_t kNeeded = protocol_feature::kMultiqueue | protocol_feature::kReplyAck;
// An engine that has these reports its link.
constexpr uint64_t kForLink = protocol_feature::kConfig | protocol_feature::kBackendRequests;

struct ConfigSpace {
  ConfigHeader header;
  NetConfig config;
};

}  // namespace

VhostUserEngine::VhostUserEngine(EventLoop& loop, std::string path, Events events)
    : loop_(loop),
      path_(std::move(path)),
      events_(std::move(events)),
      reconnect_(loop, [this] { connect(); }),
      backOff_(kNewBackOff) {
  reconnect_.start(std::chrono::milliseconds(0));
}

std::string VhostUserEngine::whyWaiting() const {
  const uint64_t missing = missingFeatures();
  if (missing == 0) return {};
  return fmt::format(
      "the engine lacks the {} {} that the driver has agreed on; restart the VM or the "
      "application, or start an engine that has them",
      (missing & ~kOffloads) == 0 ? "offloads" : "features", featureNames(missing));
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
  channelWatch_.reset();
  channel_.reset();
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
                 const uint64_t use = limits.protocolFeatures & (kNeeded | kForLink);
                 link_->tell(Request::SetProtocolFeatures, &use, sizeof use);
                 link_->tell(Request::SetOwner, nullptr, 0);
                 if ((use & kNeeded) != kNeeded)
                   return lost("the engine lacks the protocol features MQ and REPLY_ACK", false);
                 link_->ask(Request::GetQueueNum, nullptr, 0, sizeof(uint64_t),
                            [this, limits, use](const Message& third) mutable {
                              limits.queuePairs = static_cast<uint32_t>(
                                  std::min<uint64_t>(third.as<uint64_t>(), 128));
                              limits_ = limits;
                              if ((use & kForLink) != kForLink) return learned();
                              openChannel();
                              if (link_) askLink([this] { learned(); });
                            });
               });
  });
}

// Before the link's status is asked for, so that no change is missed.
void VhostUserEngine::openChannel() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
    return lost(systemError(errno, "cannot make a socket for the engine's requests").what(), false);
  channel_.emplace(UniqueFd(ends[0]));
  channelWatch_ =
      EventLoop::Watch(loop_, channel_->fd(), EPOLLIN, [this](uint32_t) { onChannel(); });
  link_->tell(Request::SetBackendReqFd, nullptr, 0,
              {std::make_shared<const UniqueFd>(UniqueFd(ends[1]))});
}

void VhostUserEngine::onChannel() {
  bool changed = false;
  try {
    while (const auto message = channel_->receive())
      changed |= static_cast<uint32_t>(message->request) == kBackendConfigChange;
  } catch (const ProtocolError& error) {
    return lost(fmt::format("the engine's request is not vhost-user: {}", error.what()), false);
  }
  if (channel_->ended()) channelWatch_.reset();
  if (changed) askLink([this] { events_.link(limits_->linkUp); });
}

void VhostUserEngine::askLink(std::function<void()> then) {
  const ConfigSpace space{{0, sizeof(NetConfig), 0}, {}};
  link_->ask(Request::GetConfig, &space, sizeof space, sizeof space,
             [this, then = std::move(then)](const Message& answer) {
               const auto config = answer.as<ConfigSpace>().config;
               limits_->linkUp = (config.status & kLinkUp) != 0;
               then();
             });
}

void VhostUserEngine::learned() {
  learned_ = true;
  backOff_ = kFirstBackOff;
  lastReason_.clear();
  if (!std::exchange(up_, true)) events_.state(true, {});
  events_.link(limits_->linkUp);
  // The link is idle now and continues with advance().
}

void VhostUserEngine::advance() {
  if (!device_) return;
  if (learned_ && stopping_ == 0) stopRings();
  if (stopping_ > 0) return;  // their answers continue here
  for (uint32_t i = 0; i < device_->rings.size(); ++i)
    if (!device_->rings[i].started) findPosition(i);
  if (!learned_ || missingFeatures() != 0) return;

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
                 uint32_t base = answer.as<VringState>().value;
                 if (!device_->packed() || !ours()) base &= 0xffff;
                 // rte_vhost gives one position for both sides of a packed ring: they are equal
                 // once it has stopped.
                 if (device_->packed() && !ours()) base |= base << 16;
                 device_->rings[i].base = base;
                 handed_[i] = {};
                 --stopping_;
               });
  }
}

void VhostUserEngine::shareMemory() {
  if (handedFeatures_ != device_->features) {
    const uint64_t features = (device_->features & ~kWorkersFeatures) | feature::kProtocolFeatures;
    set(Request::SetFeatures, &features, sizeof features);
    handedFeatures_ = device_->features;
  }
  if (handedMemory_ == device_->memory) return;
  if (!ours() && handedMemory_ && handedMemory_->sameAddresses(*device_->memory)) {
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

// Our switch has a configuration space; no rte_vhost has one for a network device.
bool VhostUserEngine::ours() const {
  return limits_ && (limits_->protocolFeatures & protocol_feature::kConfig) != 0;
}

// Only once its driver is ready: before, it may still agree on others.
uint64_t VhostUserEngine::missingFeatures() const {
  if (!device_ || !learned_) return 0;
  const bool wanted = std::any_of(device_->rings.begin(), device_->rings.end(),
                                  [this](const Vring& ring) { return device_->runs(ring); });
  return wanted ? device_->features & ~kWorkersFeatures & ~limits_->features : 0;
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
