#include "common/netlink/vdpa_netlink.h"

#include <fmt/core.h>
#include <linux/genetlink.h>
#include <linux/vdpa.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/mac_address.h"
#include "common/mutex.h"
#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/generic.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"
#include "common/vdpa_attributes.h"

namespace vdpa {
namespace {

// VDPA_CMD_DEV_ATTR_SET, which Debian 12's header lacks: include/uapi/linux/vdpa.h in Linux 6.12.
constexpr uint8_t kDeviceAttributeSet = VDPA_CMD_DEV_VSTATS_GET + 1;

using netlink::Attribute;
using netlink::Attributes;
using netlink::Error;
using netlink::Message;
using netlink::Request;
using netlink::Socket;

// A management device's name is its bus and device, or only the device if it has no bus.
class Handle {
 public:
  bool take(const Attribute& attribute) {
    if (attribute.type() == VDPA_ATTR_MGMTDEV_BUS_NAME)
      bus_ = attribute.text();
    else if (attribute.type() == VDPA_ATTR_MGMTDEV_DEV_NAME)
      device_ = attribute.text();
    else
      return false;
    return true;
  }
  std::string name() const { return bus_.empty() ? device_ : bus_ + "/" + device_; }

 private:
  std::string bus_, device_;
};

// Absent if it is zero: the device has none.
std::optional<MacAddress> macOf(const Attribute& attribute) {
  const auto mac = attribute.mac();
  return mac && !mac->isZero() ? mac : std::nullopt;
}

Request vdpaRequest(uint16_t family, uint8_t command) {
  return netlink::genericRequest(family, command, VDPA_GENL_VERSION);
}

netlink::Bytes attributesOf(const Message& message) {
  return message.attributes<genlmsghdr>().bytes();
}

uint16_t requireFamily(Socket& socket) {
  const auto id = netlink::findFamily(socket, VDPA_GENL_NAME);
  if (!id) throw systemError(ENOENT, "this kernel has no vDPA: `modprobe vdpa` on the node");
  return *id;
}

// A request about one device.
Request deviceRequest(uint16_t family, uint8_t command, const std::string& name) {
  Request request = vdpaRequest(family, command);
  request.text(VDPA_ATTR_DEV_NAME, name);
  return request;
}

void putHandle(Request& request, const std::string& managementDevice) {
  const size_t slash = managementDevice.find('/');
  if (slash != std::string::npos)
    request.text(VDPA_ATTR_MGMTDEV_BUS_NAME, managementDevice.substr(0, slash));
  request.text(VDPA_ATTR_MGMTDEV_DEV_NAME,
               managementDevice.substr(slash == std::string::npos ? 0 : slash + 1));
}

// If the parent doesn't exist, the result has only its name.
VdpaParent parentNow(Socket& socket, uint16_t family, const std::string& managementDevice) {
  VdpaParent parent{managementDevice, 0, 0};
  Request request = vdpaRequest(family, VDPA_CMD_MGMTDEV_GET);
  putHandle(request, managementDevice);
  (void)socket.request(request, [&](const Message& message) {
    const auto info = parseVdpaManagement(attributesOf(message));
    parent.maxVirtqueues = info.maxVirtqueues;
    parent.features = info.features;
  });
  return parent;
}

Error addNow(Socket& socket, uint16_t family, const std::string& name,
             const std::string& managementDevice, const VdpaAttributes& attributes) {
  Request request = deviceRequest(family, VDPA_CMD_DEV_NEW, name);
  putHandle(request, managementDevice);
  if (attributes.queuePairs)
    request.number(VDPA_ATTR_DEV_NET_CFG_MAX_VQP, static_cast<uint16_t>(*attributes.queuePairs));
  if (attributes.mtu != 0)
    request.number(VDPA_ATTR_DEV_NET_CFG_MTU, static_cast<uint16_t>(attributes.mtu));
  if (attributes.mac) request.mac(VDPA_ATTR_DEV_NET_CFG_MACADDR, *attributes.mac);
  if (attributes.features) request.number(VDPA_ATTR_DEV_FEATURES, *attributes.features);
  return socket.request(request);
}

Error configNow(Socket& socket, uint16_t family, const std::string& name,
                std::optional<VdpaDeviceInfo>& found) {
  Request request = deviceRequest(family, VDPA_CMD_DEV_CONFIG_GET, name);
  return socket.request(
      request, [&](const Message& message) { found = parseVdpaDevice(attributesOf(message)); });
}

void removeNow(Socket& socket, uint16_t family, const std::string& name) {
  Request request = deviceRequest(family, VDPA_CMD_DEV_DEL, name);
  const Error error = socket.request(request);
  if (error && error.number != ENODEV)
    throw netlink::failure(error, "cannot remove vDPA device {}{}", name,
                           error.number == EBUSY ? " (a program has it open)" : "");
}

// Makes a device with the driver's defaults, which every driver accepts, to see its MAC.
bool showsMac(Socket& socket, uint16_t family, const std::string& name,
              const std::string& managementDevice) {
  if (addNow(socket, family, name, managementDevice, {})) return false;
  std::optional<VdpaDeviceInfo> found;
  (void)configNow(socket, family, name, found);  // no answer counts as no MAC
  removeNow(socket, family, name);
  return found && found->mac;
}

// A dump of what this command lists.
template <typename Info>
std::vector<Info> list(Socket& socket, uint16_t family, uint8_t command,
                       Info (*parse)(std::span<const std::byte>)) {
  Request request = vdpaRequest(family, command);
  return socket.dump<std::vector<Info>>(
      request, "list the kernel's vDPA devices",
      [&](auto& found, const Message& message) { found.push_back(parse(attributesOf(message))); });
}

VdpaNetlink::Dump dumpNow() {
  Socket socket(NETLINK_GENERIC);
  VdpaNetlink::Dump dump;
  const auto family = netlink::findFamily(socket, VDPA_GENL_NAME);
  if (!family) return dump;
  dump.management = list(socket, *family, VDPA_CMD_MGMTDEV_GET, parseVdpaManagement);
  dump.devices = list(socket, *family, VDPA_CMD_DEV_GET, parseVdpaDevice);
  // A separate request: not every device reports its configuration before a driver has set it up.
  std::map<std::string, VdpaDeviceInfo*> byName;
  for (auto& device : dump.devices) byName.emplace(device.name, &device);
  try {
    for (const auto& found : list(socket, *family, VDPA_CMD_DEV_CONFIG_GET, parseVdpaDevice)) {
      const auto device = byName.find(found.name);
      if (device == byName.end()) continue;  // made meanwhile
      device->second->maxQueuePairs = found.maxQueuePairs;
      device->second->mac = found.mac;
      device->second->mtu = found.mtu;
      device->second->features = found.features;
    }
  } catch (const std::system_error&) {
  }
  return dump;
}

}  // namespace

VdpaDeviceInfo parseVdpaDevice(std::span<const std::byte> attributes) {
  VdpaDeviceInfo info;
  Handle handle;
  for (const Attribute attribute : Attributes(attributes)) {
    if (handle.take(attribute)) continue;
    switch (attribute.type()) {
      case VDPA_ATTR_DEV_NAME:
        info.name = attribute.text();
        break;
      case VDPA_ATTR_DEV_ID:
        info.deviceId = attribute.number<uint32_t>().value_or(0);
        break;
      case VDPA_ATTR_DEV_MAX_VQS:
        info.maxVirtqueues = attribute.number<uint32_t>().value_or(0);
        break;
      case VDPA_ATTR_DEV_MAX_VQ_SIZE:
        info.maxQueueSize = attribute.number<uint16_t>().value_or(0);
        break;
      case VDPA_ATTR_DEV_NET_CFG_MAX_VQP:
        info.maxQueuePairs = attribute.number<uint16_t>().value_or(0);
        break;
      case VDPA_ATTR_DEV_NET_CFG_MACADDR:
        info.mac = macOf(attribute);
        break;
      case VDPA_ATTR_DEV_NET_CFG_MTU:
        info.mtu = attribute.number<uint16_t>().value_or(0);
        break;
      case VDPA_ATTR_DEV_FEATURES:
        info.features = attribute.number<uint64_t>().value_or(0);
        break;
      default:
        break;
    }
  }
  info.managementDevice = handle.name();
  return info;
}

VdpaQueueEvents parseVdpaQueueEvents(std::span<const std::byte> attributes) {
  VdpaQueueEvents events;
  std::string name;
  for (const Attribute attribute : Attributes(attributes)) {
    if (attribute.type() == VDPA_ATTR_DEV_VENDOR_ATTR_NAME) name = attribute.text();
    if (attribute.type() == VDPA_ATTR_DEV_VENDOR_ATTR_VALUE)
      if (const auto value = attribute.number<uint64_t>(); value && !name.empty())
        events[name] = *value;
  }
  return events;
}

VdpaManagementInfo parseVdpaManagement(std::span<const std::byte> attributes) {
  VdpaManagementInfo info;
  Handle handle;
  for (const Attribute attribute : Attributes(attributes)) {
    if (handle.take(attribute)) continue;
    if (attribute.type() == VDPA_ATTR_MGMTDEV_SUPPORTED_CLASSES)
      info.classes = attribute.number<uint64_t>().value_or(0);
    if (attribute.type() == VDPA_ATTR_DEV_MGMTDEV_MAX_VQS)
      info.maxVirtqueues = attribute.number<uint32_t>().value_or(0);
    if (attribute.type() == VDPA_ATTR_DEV_SUPPORTED_FEATURES)
      info.features = attribute.number<uint64_t>().value_or(0);
  }
  info.name = handle.name();
  return info;
}

struct VdpaNetlink::Calls {
  Mutex mutex;
  Condition done;
  bool running GUARDED_BY(mutex) = false;
};

VdpaNetlink::VdpaNetlink(std::chrono::milliseconds timeout)
    : timeout_(timeout), calls_(std::make_shared<Calls>()) {}

VdpaNetlink::~VdpaNetlink() = default;

void VdpaNetlink::withDeadline(const std::string& what, std::function<void()> call) {
  const auto deadline = std::chrono::steady_clock::now() + timeout_;
  const auto hangs = [&] {
    return systemError(ETIMEDOUT,
                       "cannot {}: the kernel's vdpa lock is held; a `vdpa dev del` may be waiting "
                       "for a program that has the device open",
                       what);
  };
  struct Outcome {  // of this call only: another call may end before this thread wakes
    bool ended = false;
    std::exception_ptr failure;
  };
  const auto outcome = std::make_shared<Outcome>();
  Lock lock(calls_->mutex);
  while (calls_->running)
    if (!calls_->done.waitUntil(calls_->mutex, deadline)) break;
  if (calls_->running) throw hangs();
  calls_->running = true;
  std::thread([calls = calls_, outcome, call = std::move(call)] {
    std::exception_ptr failure;
    try {
      call();
    } catch (...) {
      failure = std::current_exception();
    }
    Lock lock(calls->mutex);
    outcome->ended = true;
    outcome->failure = failure;
    calls->running = false;
    calls->done.notifyAll();
  }).detach();
  while (!outcome->ended)
    if (!calls_->done.waitUntil(calls_->mutex, deadline)) break;
  if (!outcome->ended) throw hangs();
  if (outcome->failure) std::rethrow_exception(outcome->failure);
}

VdpaNetlink::Dump VdpaNetlink::dump() {
  const auto result = std::make_shared<Dump>();
  try {
    withDeadline("list the kernel's vDPA devices", [result] { *result = dumpNow(); });
    last_ = *result;
  } catch (const std::system_error& error) {
    last_.problem = error.what();
  }
  return last_;
}

std::optional<VdpaDeviceInfo> VdpaNetlink::config(const std::string& name) {
  const auto found = std::make_shared<std::optional<VdpaDeviceInfo>>();
  withDeadline("query vDPA device " + name, [name, found] {
    Socket socket(NETLINK_GENERIC);
    const Error error = configNow(socket, requireFamily(socket), name, *found);
    // EAGAIN: its features are being set up; EOPNOTSUPP: not a network device.
    if (error && error.number != ENODEV && error.number != EAGAIN && error.number != EOPNOTSUPP)
      throw netlink::failure(error, "cannot query vDPA device {}", name);
  });
  return *found;
}

bool VdpaNetlink::setMac(const std::string& name, const MacAddress& mac) {
  const auto result = std::make_shared<bool>(false);
  withDeadline(fmt::format("set MAC {} of vDPA device {}", mac.text(), name), [name, mac, result] {
    Socket socket(NETLINK_GENERIC);
    Request request = deviceRequest(requireFamily(socket), kDeviceAttributeSet, name);
    request.mac(VDPA_ATTR_DEV_NET_CFG_MACADDR, mac);
    const Error error = socket.request(request);
    // An older kernel doesn't know the command: also EOPNOTSUPP.
    if (error && error.number != EOPNOTSUPP)
      throw netlink::failure(error, "cannot set MAC {} of vDPA device {}", mac.text(), name);
    *result = !error;
  });
  return *result;
}

VdpaAttributes VdpaNetlink::add(const std::string& name, const std::string& managementDevice,
                                const VdpaAttributes& attributes) {
  const auto taken = std::make_shared<VdpaAttributes>();
  withDeadline("make vDPA device " + name, [name, managementDevice, attributes, taken] {
    Socket socket(NETLINK_GENERIC);
    const uint16_t family = requireFamily(socket);
    VdpaParent parent = parentNow(socket, family, managementDevice);
    if (const auto reason = unsupported(attributes, parent); !reason.empty())
      throw std::runtime_error(reason);
    if (dependsOnMac(attributes, parent))
      parent.hasMac = showsMac(socket, family, name, managementDevice);
    Error error;
    for (const auto& way : waysToMake(attributes, parent)) {
      error = addNow(socket, family, name, managementDevice, way);
      *taken = way;
      if (error.number != EINVAL && error.number != EOPNOTSUPP) break;
    }
    if (!error) return;
    const int number = error.number;
    const char* remedy = number == EEXIST ? "it exists, or its function has one already"
                         : number == ENODEV || number == ENOENT
                             ? "there is no such management device: is its driver loaded and bound?"
                         : number == EOPNOTSUPP ? "its driver does not support this"
                         : number == EPERM      ? "it needs CAP_NET_ADMIN"
                                                : "see the kernel's log";
    throw netlink::failure(error, "cannot make vDPA device {} of {} with {} ({})", name,
                           managementDevice, describe(attributes), remedy);
  });
  return *taken;
}

std::vector<VdpaQueueEvents> VdpaNetlink::queueEvents(const std::string& name, unsigned queues) {
  const auto found = std::make_shared<std::vector<VdpaQueueEvents>>();
  withDeadline("read the counters of vDPA device " + name, [name, queues, found] {
    Socket socket(NETLINK_GENERIC);
    const uint16_t family = requireFamily(socket);
    for (uint32_t queue = 0; queue < queues; ++queue) {
      Request request = deviceRequest(family, VDPA_CMD_DEV_VSTATS_GET, name);
      request.number(VDPA_ATTR_DEV_QUEUE_INDEX, queue);
      VdpaQueueEvents events;
      const Error error = socket.request(request, [&](const Message& message) {
        events = parseVdpaQueueEvents(attributesOf(message));
      });
      // EOPNOTSUPP: the driver has no counters; EAGAIN: it isn't set up; EINVAL, ERANGE: there is
      // no such queue.
      for (const int none : {EOPNOTSUPP, EAGAIN, EINVAL, ERANGE, ENODEV})
        if (error.number == none) return;
      if (error) throw netlink::failure(error, "cannot read the counters of vDPA device {}", name);
      found->push_back(std::move(events));
    }
  });
  return *found;
}

void VdpaNetlink::remove(const std::string& name) {
  withDeadline("remove vDPA device " + name, [name] {
    Socket socket(NETLINK_GENERIC);
    removeNow(socket, requireFamily(socket), name);
  });
}

}  // namespace vdpa
