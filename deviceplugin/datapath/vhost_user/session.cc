#include "deviceplugin/datapath/vhost_user/session.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/backend_channel.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/message_checks.h"
#include "deviceplugin/datapath/vhost_user/net_config.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vhost_user {
namespace {

constexpr uint64_t kMinMtu = 68;  // RFC 791

// An eventfd has no type of its own in fstat(); the kernel's name for it says what it is.
bool isEventFd(int fd) {
  char target[64];
  const std::string link = fmt::format("/proc/self/fd/{}", fd);
  const ssize_t length = ::readlink(link.c_str(), target, sizeof target);
  if (length >= 0)
    return std::string_view(target, static_cast<size_t>(length)) == "anon_inode:[eventfd]";
  struct stat status {};  // without /proc: at least neither file, pipe, socket nor device
  return ::fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == 0;
}

}  // namespace

Session::Session(const OfferedFeatures& offered) : offered_(offered) {
  device_.rings.resize(size_t{2} * offered.queuePairs);
}

void Session::handle(Message&& message) {
  checkForm(message);
  pending_ = {};
  pending_.request = message.request;
  pending_.acknowledge =
      (message.flags & kNeedReplyFlag) && device_.hasProtocol(protocol_feature::kReplyAck);
  try {
    dispatch(message);
  } catch (const ProtocolError& error) {
    throw protocolError("{}: {}", nameOf(message.request), error.what());
  }
}

std::optional<std::vector<std::byte>> Session::takeReply() {
  Pending reply = std::exchange(pending_, {});
  if (reply.stoppedRing) {
    const VringState state{*reply.stoppedRing, device_.rings[*reply.stoppedRing].base};
    return encode(reply.request, kVersion | kReplyFlag, &state, sizeof state);
  }
  if (reply.answers)
    return encode(reply.request, kVersion | kReplyFlag, reply.payload.data(), reply.payload.size());
  if (reply.acknowledge)
    return encode(reply.request, kVersion | kReplyFlag, &reply.refused, sizeof reply.refused);
  return std::nullopt;
}

std::optional<std::vector<std::byte>> Session::takeRefusal() {
  if (pending_.answers || pending_.stoppedRing) pending_ = {};  // not acknowledged
  pending_.refused = 1;
  return takeReply();
}

void Session::dispatch(Message& message) {
  switch (message.request) {
    case Request::GetFeatures:
      featuresRead_ = true;
      return answer(offered_.features);
    case Request::SetFeatures:
      return setFeatures(message.as<uint64_t>());
    case Request::SetOwner:
      return;  // a connection has one owner: the process at its other end
    case Request::ResetOwner:
      return stopAllRings();
    case Request::GetProtocolFeatures:
      return answer(offered_.protocolFeatures);
    case Request::SetProtocolFeatures:
      return setProtocolFeatures(message.as<uint64_t>());
    case Request::SetMemTable:
      return setMemory(message);
    case Request::SetVringNum:
      return setRingSize(message.as<VringState>());
    case Request::SetVringBase:
      return setRingBase(message.as<VringState>());
    case Request::SetVringAddr:
      return setRingAddresses(message.as<VringAddresses>());
    case Request::SetVringKick:
    case Request::SetVringCall:
    case Request::SetVringErr:
      return setRingDescriptor(message);
    case Request::GetVringBase:
      return stopRing(message.as<VringState>());
    case Request::SetVringEnable:
      return enableRing(message.as<VringState>());
    case Request::GetQueueNum:
      need(protocol_feature::kMultiqueue, "MQ");
      return answer(offered_.queuePairs);
    case Request::NetSetMtu:
      return setMtu(message.as<uint64_t>());
    case Request::SetBackendReqFd:
      return setBackendChannel(message);
    case Request::GetConfig:
      return getConfig(message);
    case Request::SetConfig:  // the driver may not change anything in a network device's space
      need(protocol_feature::kConfig, "CONFIG");
      pending_.refused = 1;
      return;
    case Request::ResetDevice:
      need(protocol_feature::kResetDevice, "RESET_DEVICE");
      device_.status = 0;
      return stopAllRings();
    case Request::SetStatus:
      return setStatus(message.as<uint64_t>());
    case Request::GetStatus:
      need(protocol_feature::kStatus, "STATUS");
      return answer(device_.status);
  }
}

void Session::setFeatures(uint64_t features) {
  if (const uint64_t unknown = features & ~offered_.features; unknown != 0)
    throw protocolError(
        "features {:#x} are not offered; if the driver agreed on them before this node was "
        "updated, restart the VM or the application",
        unknown);
  if ((features & feature::kPackedRing) && !(features & feature::kVersion1))
    throw protocolError("packed rings need VERSION_1");
  if (features != device_.features && anyStarted())
    throw protocolError("features change from {:#x} to {:#x} while rings run", device_.features,
                        features);
  device_.features = features;
  featuresSet_ = true;
}

void Session::setProtocolFeatures(uint64_t features) {
  if (const uint64_t unknown = features & ~offered_.protocolFeatures; unknown != 0)
    throw protocolError("protocol features {:#x} were not offered", unknown);
  if (features != device_.protocolFeatures && anyStarted())
    throw protocolError("protocol features change while rings run");
  device_.protocolFeatures = features;
}

void Session::setMemory(Message& message) {
  auto memory = std::make_shared<const MemoryTable>(std::move(message));
  // Front-ends repeat this at every start of a port: an unchanged table stays in place.
  if (device_.memory && device_.memory->sameAs(*memory)) return;
  for (size_t i = 0; i < device_.rings.size(); ++i)
    if (device_.rings[i].started) checkRing(device_, memory.get(), i);
  device_.memory = std::move(memory);
}

void Session::setRingSize(VringState state) {
  Vring& ring = stoppedRing(state.index);
  if (state.value < offered_.minQueueSize || state.value > offered_.queueSize)
    throw protocolError("ring {} with {} entries; expected {} to {}", state.index, state.value,
                        offered_.minQueueSize, offered_.queueSize);
  ring.size = state.value;
}

void Session::setRingBase(VringState state) {
  Vring& ring = stoppedRing(state.index);
  if (!device_.packed() && state.value > 0xffff)
    throw protocolError("ring {} starts at {:#x}; an index has 16 bits", state.index, state.value);
  ring.base = state.value;
  ring.positionLost = false;
}

void Session::setRingAddresses(const VringAddresses& addresses) {
  Vring& ring = stoppedRing(addresses.index);
  if (addresses.flags != 0)  // the only one is for dirty-page logging
    throw protocolError("ring {}: flags {:#x} were not offered", addresses.index, addresses.flags);
  ring.addresses = addresses;
}

void Session::setRingDescriptor(Message& message) {
  const auto value = message.as<uint64_t>();
  if ((value & ~(kVringIndexMask | kVringNoDescriptor)) != 0)
    throw protocolError("unknown bits in {:#x}", value);
  const auto index = value & kVringIndexMask;
  Vring& ring = this->ring(index);
  SharedFd descriptor;
  if (!(value & kVringNoDescriptor)) {
    if (!isEventFd(message.descriptors.front().get()))
      throw protocolError("ring {}: the descriptor is not an eventfd", index);
    UniqueFd fd = std::move(message.descriptors.front());
    // Signalling it must not block on a counter that the pod has filled.
    ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
    descriptor = std::make_shared<const UniqueFd>(std::move(fd));
  }
  if (message.request == Request::SetVringCall) {
    ring.call = std::move(descriptor);
  } else if (message.request == Request::SetVringErr) {
    ring.error = std::move(descriptor);
  } else {
    checkRing(device_, device_.memory.get(), index);
    ring.kick = std::move(descriptor);
    ring.started = true;
  }
}

void Session::stopRing(VringState state) {
  ring(state.index).started = false;
  pending_.stoppedRing = state.index;
}

void Session::enableRing(VringState state) {
  // Also before SET_FEATURES: QEMU treats PROTOCOL_FEATURES as agreed on once it was offered.
  if (state.value > 1)
    throw protocolError("ring {}: value {}; expected 0 or 1", state.index, state.value);
  ring(state.index).enabled = state.value == 1;
}

void Session::setStatus(uint64_t status) {
  need(protocol_feature::kStatus, "STATUS");
  if (status > 0xff) throw protocolError("status {:#x}; expected 8 bits", status);
  device_.status = static_cast<uint8_t>(status);
  if (status == 0) stopAllRings();
}

void Session::getConfig(const Message& message) {
  need(protocol_feature::kConfig, "CONFIG");
  const auto header = message.as<ConfigHeader>();
  pending_.answers = true;
  // Beyond any space: an empty answer reports the failure. Not so beyond this one, which has zeros
  // there: the vhost crate of rust-vmm waits for as many bytes as it asked for.
  if (header.offset > kMaxConfigSize || header.size > kMaxConfigSize - header.offset) return;
  std::array<std::byte, kMaxConfigSize> space{};
  std::memcpy(space.data(), &offered_.config, sizeof offered_.config);
  pending_.payload = message.payload;
  std::memcpy(pending_.payload.data() + sizeof header, space.data() + header.offset, header.size);
}

void Session::setBackendChannel(Message& message) {
  need(protocol_feature::kBackendRequests, "BACKEND_REQ");
  backendChannel_.open(message.descriptors.front());
}

void Session::setLink(bool up) {
  const uint16_t status = up ? kLinkUp : 0;
  if (std::exchange(offered_.config.status, status) == status) return;
  if (device_.hasProtocol(protocol_feature::kConfig)) backendChannel_.configChanged();
}

void Session::setMtu(uint64_t mtu) {
  need(protocol_feature::kMtu, "NET_MTU");
  pending_.refused = mtu < kMinMtu || mtu > offered_.config.mtu ? 1 : 0;
}

void Session::stopAllRings() {
  for (Vring& ring : device_.rings) ring.started = ring.enabled = false;
}

Vring& Session::ring(uint64_t index) {
  if (index >= device_.rings.size())
    throw protocolError("ring {} of a device with {} queue pairs", index, offered_.queuePairs);
  return device_.rings[index];
}

Vring& Session::stoppedRing(uint64_t index) {
  Vring& found = ring(index);
  if (found.started)
    throw protocolError("ring {} runs; it must be stopped with GET_VRING_BASE first", index);
  return found;
}

bool Session::anyStarted() const {
  return std::any_of(device_.rings.begin(), device_.rings.end(),
                     [](const Vring& ring) { return ring.started; });
}

void Session::need(uint64_t protocolFeature, const char* name) const {
  if (!device_.hasProtocol(protocolFeature))
    throw protocolError("needs the protocol feature {}, which was not negotiated", name);
}

void Session::answer(uint64_t value) {
  pending_.answers = true;
  pending_.payload.resize(sizeof value);
  std::memcpy(pending_.payload.data(), &value, sizeof value);
}

}  // namespace vdpa::vhost_user
