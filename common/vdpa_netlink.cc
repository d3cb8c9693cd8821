#include "common/vdpa_netlink.h"

#include <fmt/core.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/vdpa.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "common/errors.h"
#include "common/mutex.h"
#include "common/vdpa_attributes.h"

namespace vdpa {
namespace {

// VDPA_CMD_DEV_ATTR_SET, which Debian 12's header lacks: include/uapi/linux/vdpa.h in Linux 6.12.
constexpr uint8_t kDeviceAttributeSet = VDPA_CMD_DEV_VSTATS_GET + 1;

class Attribute {
 public:
  Attribute(uint16_t type, std::span<const std::byte> value) : type_(type), value_(value) {}
  uint16_t type() const { return type_; }
  template <typename Number>
  Number number() const {
    Number number{};
    if (value_.size() == sizeof number) std::memcpy(&number, value_.data(), sizeof number);
    return number;
  }
  std::string text() const {
    const std::string_view all(reinterpret_cast<const char*>(value_.data()), value_.size());
    return std::string(all.substr(0, all.find('\0')));
  }
  std::string mac() const {
    if (value_.size() != 6) return "";
    std::string text;
    bool any = false;
    for (const std::byte octet : value_) {
      any = any || octet != std::byte{0};
      text += fmt::format("{}{:02x}", text.empty() ? "" : ":", std::to_integer<unsigned>(octet));
    }
    return any ? text : "";
  }

 private:
  uint16_t type_;
  std::span<const std::byte> value_;
};

template <typename Handler>
void forEachAttribute(std::span<const std::byte> bytes, Handler handler) {
  while (bytes.size() >= sizeof(nlattr)) {
    nlattr header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.nla_len < sizeof header || header.nla_len > bytes.size()) return;
    handler(Attribute(static_cast<uint16_t>(header.nla_type & NLA_TYPE_MASK),
                      bytes.subspan(sizeof header, header.nla_len - sizeof header)));
    const size_t step = (header.nla_len + size_t{3}) & ~size_t{3};
    bytes = bytes.subspan(std::min(step, bytes.size()));
  }
}

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

class Socket {
 public:
  using Attributes = std::span<const std::byte>;

  Socket() : socket_(mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC)) {
    if (!socket_) throw systemError(errno, "cannot open a generic netlink socket");
    if (mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) {
      const int error = errno;
      mnl_socket_close(socket_);
      throw systemError(error, "cannot bind a generic netlink socket");
    }
  }
  ~Socket() { mnl_socket_close(socket_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // The number of a family; nothing if the kernel doesn't have it.
  std::optional<uint16_t> family(const std::string& name) {
    std::optional<uint16_t> id;
    const int error = run(
        GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0,
        [&](nlmsghdr* request) { mnl_attr_put_strz(request, CTRL_ATTR_FAMILY_NAME, name.c_str()); },
        [&](Attributes attributes) {
          forEachAttribute(attributes, [&](const Attribute& attribute) {
            if (attribute.type() == CTRL_ATTR_FAMILY_ID) id = attribute.number<uint16_t>();
          });
        });
    if (error != 0 && error != ENOENT)
      throw systemError(error, "cannot look up netlink family {}", name);
    return id;
  }

  // Sends one request and passes on every answer. Returns an errno value, 0 for success.
  int run(uint16_t type, uint8_t command, uint16_t flags,
          const std::function<void(nlmsghdr*)>& fill,
          const std::function<void(Attributes)>& answer) {
    std::array<char, 1024> buffer{};
    nlmsghdr* request = mnl_nlmsg_put_header(buffer.data());
    request->nlmsg_type = type;
    request->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    request->nlmsg_seq = ++sequence_;
    auto* generic =
        static_cast<genlmsghdr*>(mnl_nlmsg_put_extra_header(request, sizeof(genlmsghdr)));
    generic->cmd = command;
    generic->version = VDPA_GENL_VERSION;
    fill(request);
    if (mnl_socket_sendto(socket_, request, request->nlmsg_len) < 0) return errno;
    for (;;) {
      std::array<char, 32768> answers;
      const ssize_t length = mnl_socket_recvfrom(socket_, answers.data(), answers.size());
      if (length < 0) return errno;
      const int more = mnl_cb_run(answers.data(), static_cast<size_t>(length), sequence_,
                                  mnl_socket_get_portid(socket_), take,
                                  const_cast<std::function<void(Attributes)>*>(&answer));
      if (more < 0) return errno;
      if (more == MNL_CB_STOP) return 0;
    }
  }

 private:
  static int take(const nlmsghdr* message, void* data) {
    const auto& answer = *static_cast<const std::function<void(Attributes)>*>(data);
    if (message->nlmsg_len < mnl_nlmsg_size(sizeof(genlmsghdr))) return MNL_CB_OK;
    const auto* start =
        static_cast<const std::byte*>(mnl_nlmsg_get_payload_offset(message, sizeof(genlmsghdr)));
    const auto* end = reinterpret_cast<const std::byte*>(message) + message->nlmsg_len;
    answer({start, end});
    return MNL_CB_OK;
  }

  mnl_socket* socket_;
  uint32_t sequence_ = 0;
};

uint16_t requireFamily(Socket& socket) {
  const auto id = socket.family(VDPA_GENL_NAME);
  if (!id) throw systemError(ENOENT, "this kernel has no vDPA: `modprobe vdpa` on the node");
  return *id;
}

void putHandle(nlmsghdr* request, const std::string& managementDevice) {
  const size_t slash = managementDevice.find('/');
  if (slash != std::string::npos)
    mnl_attr_put_strz(request, VDPA_ATTR_MGMTDEV_BUS_NAME,
                      managementDevice.substr(0, slash).c_str());
  mnl_attr_put_strz(request, VDPA_ATTR_MGMTDEV_DEV_NAME,
                    managementDevice.substr(slash == std::string::npos ? 0 : slash + 1).c_str());
}

// A MAC as six octets. Throws std::system_error.
std::array<uint8_t, 6> parseMac(const std::string& mac) {
  std::array<unsigned, 6> octets{};
  if (std::sscanf(mac.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x", &octets[0], &octets[1], &octets[2],
                  &octets[3], &octets[4], &octets[5]) != 6)
    throw systemError(EINVAL, "'{}' is not a MAC address", mac);
  std::array<uint8_t, 6> bytes{};
  std::copy(octets.begin(), octets.end(), bytes.begin());
  return bytes;
}

// If the parent doesn't exist, the result has only its name.
VdpaParent parentNow(Socket& socket, uint16_t family, const std::string& managementDevice) {
  VdpaParent parent{managementDevice, 0, 0};
  socket.run(
      family, VDPA_CMD_MGMTDEV_GET, 0,
      [&](nlmsghdr* request) { putHandle(request, managementDevice); },
      [&](Socket::Attributes attributes) {
        const auto info = parseVdpaManagement(attributes);
        parent.maxVirtqueues = info.maxVirtqueues;
        parent.features = info.features;
      });
  return parent;
}

int addNow(Socket& socket, uint16_t family, const std::string& name,
           const std::string& managementDevice, const VdpaAttributes& attributes) {
  return socket.run(
      family, VDPA_CMD_DEV_NEW, 0,
      [&](nlmsghdr* request) {
        putHandle(request, managementDevice);
        mnl_attr_put_strz(request, VDPA_ATTR_DEV_NAME, name.c_str());
        if (attributes.queuePairs)
          mnl_attr_put_u16(request, VDPA_ATTR_DEV_NET_CFG_MAX_VQP,
                           static_cast<uint16_t>(*attributes.queuePairs));
        if (attributes.mtu != 0)
          mnl_attr_put_u16(request, VDPA_ATTR_DEV_NET_CFG_MTU,
                           static_cast<uint16_t>(attributes.mtu));
        if (!attributes.mac.empty()) {
          const auto mac = parseMac(attributes.mac);
          mnl_attr_put(request, VDPA_ATTR_DEV_NET_CFG_MACADDR, mac.size(), mac.data());
        }
        if (attributes.features)
          mnl_attr_put_u64(request, VDPA_ATTR_DEV_FEATURES, *attributes.features);
      },
      [](Socket::Attributes) {});
}

int configNow(Socket& socket, uint16_t family, const std::string& name,
              std::optional<VdpaDeviceInfo>& found) {
  return socket.run(
      family, VDPA_CMD_DEV_CONFIG_GET, 0,
      [&](nlmsghdr* request) { mnl_attr_put_strz(request, VDPA_ATTR_DEV_NAME, name.c_str()); },
      [&](Socket::Attributes attributes) { found = parseVdpaDevice(attributes); });
}

void removeNow(Socket& socket, uint16_t family, const std::string& name) {
  const int error = socket.run(
      family, VDPA_CMD_DEV_DEL, 0,
      [&](nlmsghdr* request) { mnl_attr_put_strz(request, VDPA_ATTR_DEV_NAME, name.c_str()); },
      [](Socket::Attributes) {});
  if (error != 0 && error != ENODEV)
    throw systemError(error, "cannot remove vDPA device {}{}", name,
                      error == EBUSY ? " (a program has it open)" : "");
}

// Makes a device with the driver's defaults, which every driver accepts, to see its MAC.
bool showsMac(Socket& socket, uint16_t family, const std::string& name,
              const std::string& managementDevice) {
  if (addNow(socket, family, name, managementDevice, {}) != 0) return false;
  std::optional<VdpaDeviceInfo> found;
  configNow(socket, family, name, found);  // no answer counts as no MAC
  removeNow(socket, family, name);
  return found && !found->mac.empty();
}

VdpaNetlink::Dump dumpNow() {
  Socket socket;
  VdpaNetlink::Dump dump;
  const auto id = socket.family(VDPA_GENL_NAME);
  if (!id) return dump;
  const auto ask = [&](uint8_t command, const std::function<void(Socket::Attributes)>& answer) {
    const int error = socket.run(
        *id, command, NLM_F_DUMP, [](nlmsghdr*) {}, answer);
    if (error != 0) throw systemError(error, "cannot list the kernel's vDPA devices");
  };
  ask(VDPA_CMD_MGMTDEV_GET, [&](Socket::Attributes attributes) {
    dump.management.push_back(parseVdpaManagement(attributes));
  });
  ask(VDPA_CMD_DEV_GET,
      [&](Socket::Attributes attributes) { dump.devices.push_back(parseVdpaDevice(attributes)); });
  // A separate request: not every device reports its configuration before a driver has set it up.
  std::map<std::string, VdpaDeviceInfo*> byName;
  for (auto& device : dump.devices) byName.emplace(device.name, &device);
  try {
    ask(VDPA_CMD_DEV_CONFIG_GET, [&](Socket::Attributes attributes) {
      const VdpaDeviceInfo found = parseVdpaDevice(attributes);
      const auto device = byName.find(found.name);
      if (device == byName.end()) return;  // made meanwhile
      device->second->maxQueuePairs = found.maxQueuePairs;
      device->second->mac = found.mac;
      device->second->mtu = found.mtu;
      device->second->features = found.features;
    });
  } catch (const std::system_error&) {
  }
  return dump;
}

}  // namespace

VdpaDeviceInfo parseVdpaDevice(std::span<const std::byte> attributes) {
  VdpaDeviceInfo info;
  Handle handle;
  forEachAttribute(attributes, [&](const Attribute& attribute) {
    if (handle.take(attribute)) return;
    switch (attribute.type()) {
      case VDPA_ATTR_DEV_NAME:
        info.name = attribute.text();
        break;
      case VDPA_ATTR_DEV_ID:
        info.deviceId = attribute.number<uint32_t>();
        break;
      case VDPA_ATTR_DEV_MAX_VQS:
        info.maxVirtqueues = attribute.number<uint32_t>();
        break;
      case VDPA_ATTR_DEV_MAX_VQ_SIZE:
        info.maxQueueSize = attribute.number<uint16_t>();
        break;
      case VDPA_ATTR_DEV_NET_CFG_MAX_VQP:
        info.maxQueuePairs = attribute.number<uint16_t>();
        break;
      case VDPA_ATTR_DEV_NET_CFG_MACADDR:
        info.mac = attribute.mac();
        break;
      case VDPA_ATTR_DEV_NET_CFG_MTU:
        info.mtu = attribute.number<uint16_t>();
        break;
      case VDPA_ATTR_DEV_FEATURES:
        info.features = attribute.number<uint64_t>();
        break;
      default:
        break;
    }
  });
  info.managementDevice = handle.name();
  return info;
}

VdpaManagementInfo parseVdpaManagement(std::span<const std::byte> attributes) {
  VdpaManagementInfo info;
  Handle handle;
  forEachAttribute(attributes, [&](const Attribute& attribute) {
    if (handle.take(attribute)) return;
    if (attribute.type() == VDPA_ATTR_MGMTDEV_SUPPORTED_CLASSES)
      info.classes = attribute.number<uint64_t>();
    if (attribute.type() == VDPA_ATTR_DEV_MGMTDEV_MAX_VQS)
      info.maxVirtqueues = attribute.number<uint32_t>();
    if (attribute.type() == VDPA_ATTR_DEV_SUPPORTED_FEATURES)
      info.features = attribute.number<uint64_t>();
  });
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
    Socket socket;
    const int error = configNow(socket, requireFamily(socket), name, *found);
    // EAGAIN: its features are being set up; EOPNOTSUPP: not a network device.
    if (error != 0 && error != ENODEV && error != EAGAIN && error != EOPNOTSUPP)
      throw systemError(error, "cannot query vDPA device {}", name);
  });
  return *found;
}

bool VdpaNetlink::setMac(const std::string& name, const std::string& mac) {
  const auto result = std::make_shared<bool>(false);
  withDeadline(fmt::format("set MAC {} of vDPA device {}", mac, name), [name, mac, result] {
    const auto bytes = parseMac(mac);
    Socket socket;
    const int error = socket.run(
        requireFamily(socket), kDeviceAttributeSet, 0,
        [&](nlmsghdr* request) {
          mnl_attr_put_strz(request, VDPA_ATTR_DEV_NAME, name.c_str());
          mnl_attr_put(request, VDPA_ATTR_DEV_NET_CFG_MACADDR, bytes.size(), bytes.data());
        },
        [](Socket::Attributes) {});
    // An older kernel doesn't know the command: also EOPNOTSUPP.
    if (error != 0 && error != EOPNOTSUPP)
      throw systemError(error, "cannot set MAC {} of vDPA device {}", mac, name);
    *result = error == 0;
  });
  return *result;
}

VdpaAttributes VdpaNetlink::add(const std::string& name, const std::string& managementDevice,
                                const VdpaAttributes& attributes) {
  const auto taken = std::make_shared<VdpaAttributes>();
  withDeadline("make vDPA device " + name, [name, managementDevice, attributes, taken] {
    Socket socket;
    const uint16_t family = requireFamily(socket);
    VdpaParent parent = parentNow(socket, family, managementDevice);
    if (const auto reason = unsupported(attributes, parent); !reason.empty())
      throw std::runtime_error(reason);
    if (dependsOnMac(attributes, parent))
      parent.hasMac = showsMac(socket, family, name, managementDevice);
    int error = 0;
    for (const auto& way : waysToMake(attributes, parent)) {
      error = addNow(socket, family, name, managementDevice, way);
      *taken = way;
      if (error != EINVAL && error != EOPNOTSUPP) break;
    }
    const char* remedy = error == EEXIST ? "it exists, or its function has one already"
                         : error == ENODEV || error == ENOENT
                             ? "there is no such management device: is its driver loaded and bound?"
                         : error == EOPNOTSUPP ? "its driver does not support this"
                         : error == EPERM      ? "it needs CAP_NET_ADMIN"
                                               : "see the kernel's log";
    if (error != 0)
      throw systemError(error, "cannot make vDPA device {} of {} with {} ({})", name,
                        managementDevice, describe(attributes), remedy);
  });
  return *taken;
}

void VdpaNetlink::remove(const std::string& name) {
  withDeadline("remove vDPA device " + name, [name] {
    Socket socket;
    removeNow(socket, requireFamily(socket), name);
  });
}

}  // namespace vdpa
