#include "deviceplugin/datapath/hardware/function_counters.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"
#include "common/sysfs_names.h"
#include "deviceplugin/datapath/hardware/sysfs_file.h"
#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/offered_devices.h"

namespace vdpa::datapath {
namespace {

namespace fs = std::filesystem;
using netlink::Attribute;
using netlink::Attributes;

// Where a function's packets are counted.
struct Place {
  std::string pf;  // PCI address
  Represented function;
};

// Of the device's function, if it is a VF or an SF.
std::optional<Place> placeOf(const std::string& sysfs, const DeviceConfig& device) {
  constexpr std::string_view kAuxiliary = "auxiliary/";
  if (device.managementDevice.starts_with(kAuxiliary)) {
    const fs::path slice =
        sysfs + "/bus/auxiliary/devices/" + device.managementDevice.substr(kAuxiliary.size());
    unsigned number = 0;
    std::error_code error;
    const fs::path whole = fs::canonical(slice, error);
    if (!error && std::ifstream(slice / "sfnum") >> number)
      return Place{whole.parent_path().filename(), {Represented::Kind::sf, number}};
  }
  if (device.pciAddress.empty()) return std::nullopt;
  std::string pf = linkName(sysfs + "/bus/pci/devices/" + device.pciAddress + "/physfn");
  if (pf.empty()) return std::nullopt;
  return Place{std::move(pf), {Represented::Kind::vf, 0}};  // Pf has the numbers of all its VFs
}

uint64_t numberIn(const fs::path& file) {
  uint64_t number = 0;
  std::ifstream(file) >> number;
  return number;
}

bool countsNothing(const DeviceCounters& counters) {
  uint64_t sum = counters.rxPackets | counters.rxBytes | counters.txPackets | counters.txBytes;
  for (const auto& [reason, count] : counters.drops) sum |= count;
  return sum == 0;
}

// A representor is the switch's side: it transmits what its function receives.
DeviceCounters countersOf(const fs::path& representor) {
  const fs::path statistics = representor / "statistics";
  return {"",
          numberIn(statistics / "tx_packets"),
          numberIn(statistics / "tx_bytes"),
          numberIn(statistics / "rx_packets"),
          numberIn(statistics / "rx_bytes"),
          {{"receive", numberIn(statistics / "tx_dropped")},
           {"transmit", numberIn(statistics / "rx_dropped")}}};
}

// A PF as one walk over its directory finds it; without that, nothing is known of it.
class Pf {
 public:
  void find(const fs::path& directory) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(directory, error)) {
      const std::string name = entry.path().filename();
      if (const auto number = vfNumber(name)) vfs_[linkName(entry.path())] = *number;
      // A virtio function's netdev is one level deeper.
      if (name == "net") addNetdevs(entry.path());
      if (name.starts_with("virtio")) addNetdevs(entry.path() / "net");
    }
  }

  void count(const std::function<VfCounters(unsigned pfIndex)>& readVfs) {
    if (!vfs_.empty() && index_ != 0) counted_ = readVfs(index_);
  }

  std::optional<DeviceCounters> of(const std::string& pciAddress, Represented function) const {
    if (function.kind == Represented::Kind::vf) {
      const auto vf = vfs_.find(pciAddress);
      if (vf == vfs_.end()) return std::nullopt;
      function.number = vf->second;
      const auto counted = counted_.find(function.number);
      if (counted != counted_.end() && !countsNothing(counted->second)) return counted->second;
    }
    const auto representor = representors_.find(function);
    if (representor == representors_.end()) return std::nullopt;
    auto counters = countersOf(representor->second);
    return countsNothing(counters) ? std::nullopt : std::optional(std::move(counters));
  }

 private:
  void addNetdevs(const fs::path& directory) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(directory, error)) {
      std::string port;
      std::ifstream(entry.path() / "phys_port_name") >> port;
      if (const auto function = represented(port))
        representors_[*function] = entry.path();
      else if (!isRepresentor(port) && index_ == 0)
        index_ = static_cast<unsigned>(numberIn(entry.path() / "ifindex"));
    }
  }

  unsigned index_ = 0;                   // of its own netdev; 0: it has none here
  std::map<std::string, unsigned> vfs_;  // by PCI address
  std::map<Represented, fs::path> representors_;
  VfCounters counted_;
};

DeviceCounters countersOf(const Attribute& statistics) {
  DeviceCounters counters;
  for (const Attribute attribute : statistics.nested()) {
    const uint64_t value = attribute.number<uint64_t>().value_or(0);
    switch (attribute.type()) {
      case IFLA_VF_STATS_RX_PACKETS:
        counters.rxPackets = value;
        break;
      case IFLA_VF_STATS_TX_PACKETS:
        counters.txPackets = value;
        break;
      case IFLA_VF_STATS_RX_BYTES:
        counters.rxBytes = value;
        break;
      case IFLA_VF_STATS_TX_BYTES:
        counters.txBytes = value;
        break;
      case IFLA_VF_STATS_RX_DROPPED:
        counters.drops["receive"] = value;
        break;
      case IFLA_VF_STATS_TX_DROPPED:
        counters.drops["transmit"] = value;
        break;
      default:
        break;
    }
  }
  return counters;
}

}  // namespace

VfCounters parseVfCounters(std::span<const std::byte> attributes) {
  VfCounters vfs;
  for (const Attribute list : Attributes(attributes)) {
    if (list.type() != IFLA_VFINFO_LIST) continue;
    for (const Attribute info : list.nested()) {
      if (info.type() != IFLA_VF_INFO) continue;
      std::optional<unsigned> number;
      std::optional<DeviceCounters> counters;
      for (const Attribute part : info.nested()) {
        if (part.type() == IFLA_VF_MAC)
          if (const auto mac = part.structure<ifla_vf_mac>()) number = mac->vf;
        if (part.type() == IFLA_VF_STATS) counters = countersOf(part);
      }
      if (number && counters) vfs[*number] = *std::move(counters);
    }
  }
  return vfs;
}

VfCounters readVfCounters(unsigned pfIndex) {
  netlink::Socket socket(NETLINK_ROUTE);
  netlink::Request request(RTM_GETLINK);
  request.body<ifinfomsg>().ifi_index = static_cast<int>(pfIndex);
  request.number(IFLA_EXT_MASK, uint32_t{RTEXT_FILTER_VF});
  VfCounters vfs;
  const netlink::Error error = socket.request(request, [&](const netlink::Message& message) {
    vfs = parseVfCounters(message.attributes<ifinfomsg>().bytes());
  });
  if (error.number == ENODEV) return {};
  if (error)
    throw netlink::failure(error, "cannot read the counters of interface {}'s VFs", pfIndex);
  return vfs;
}

std::map<std::string, DeviceCounters> readFunctionCounters(
    const std::string& sysfs, const std::map<std::string, DeviceConfig>& devices,
    const Attempt& attempt, const std::function<VfCounters(unsigned pfIndex)>& readVfs) {
  std::map<std::string, Pf> pfs;
  std::map<std::string, DeviceCounters> found;
  for (const auto& [id, device] : devices) {
    const auto place = placeOf(sysfs, device);
    if (!place) continue;
    const auto [pf, isNew] = pfs.try_emplace(place->pf);
    if (isNew)
      attempt("the counters of the functions of " + place->pf, [&, &pf = pf->second] {
        pf.find(sysfs + "/bus/pci/devices/" + place->pf);
        pf.count(readVfs);  // if it throws, representors still have counters
      });
    if (auto counters = pf->second.of(device.pciAddress, place->function)) {
      counters->id = id;
      found.emplace(id, *std::move(counters));
    }
  }
  return found;
}

}  // namespace vdpa::datapath
