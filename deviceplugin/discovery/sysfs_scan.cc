// An object's parents are read from its link's target: the path of a netdev or a vDPA device
// contains the function that it belongs to.
#include "deviceplugin/discovery/sysfs_scan.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "common/naming.h"
#include "common/sysfs_names.h"
#include "deviceplugin/discovery/directory.h"
#include "deviceplugin/discovery/snapshot.h"

namespace vdpa::plugin {
namespace {

constexpr uint32_t kNetworkClass = 0x02;  // the upper byte of a PCI class code
constexpr const char* kVanished = "it vanished while being read";

template <typename Number>
std::optional<Number> parse(std::string_view text, int base) {
  Number number{};
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || text.empty())
    return std::nullopt;
  return number;
}

std::string lowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::vector<std::string_view> partsOf(std::string_view path) {
  std::vector<std::string_view> parts;
  for (size_t start = 0; start <= path.size();) {
    const size_t slash = std::min(path.find('/', start), path.size());
    if (slash > start) parts.push_back(path.substr(start, slash - start));
    start = slash + 1;
  }
  return parts;
}

// The innermost PCI function on a path; empty: none.
std::string functionOn(std::string_view path) {
  const auto parts = partsOf(path);
  for (auto part = parts.rbegin(); part != parts.rend(); ++part)
    if (isPciAddress(std::string(*part))) return std::string(*part);
  return "";
}

// "15B3:101E" as two lower-case halves.
bool parseIds(std::string_view text, std::string& first, std::string& second) {
  if (text.size() != 9 || text[4] != ':') return false;
  if (!parse<unsigned>(text.substr(0, 4), 16) || !parse<unsigned>(text.substr(5), 16)) return false;
  first = lowerCase(text.substr(0, 4));
  second = lowerCase(text.substr(5));
  return true;
}

class Scan {
 public:
  Scan(const std::string& sysfs, Snapshot& snapshot) : sysfs_(sysfs), snapshot_(snapshot) {}

  void run() {
    scanFunctions();
    scanVdpaBus();
    scanAuxiliaryBus();
    scanNetdevs();
  }

 private:
  void skip(const std::string& path, const std::string& reason) {
    snapshot_.skipped.emplace(sysfs_ + path, reason);
  }

  // True if the function could be or have a vDPA device.
  bool readUevent(const Directory& devices, const std::string& address, PciFunction& function,
                  bool anyClass) {
    const std::string path = "/bus/pci/devices/" + address;
    const auto uevent = devices.read(address + "/uevent");
    if (!uevent) {
      skip(path, "it vanished, or its uevent can't be read");
      return false;
    }
    std::optional<uint32_t> classCode;
    bool ids = false;
    for (std::string_view rest = *uevent; !rest.empty();) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      const size_t equals = std::min(line.find('='), line.size());
      const std::string_view key = line.substr(0, equals);
      const std::string_view value = line.substr(std::min(equals + 1, line.size()));
      if (key == "PCI_CLASS") classCode = parse<uint32_t>(value, 16);
      if (key == "PCI_ID") ids = parseIds(value, function.vendor, function.device);
      if (key == "PCI_SUBSYS_ID")
        parseIds(value, function.subsystemVendor, function.subsystemDevice);
      if (key == "DRIVER") function.driver = value;
    }
    if (!classCode || !ids) {
      skip(path, "its uevent lacks class or IDs");
      return false;
    }
    function.classCode = *classCode;
    return anyClass || *classCode >> 16 == kNetworkClass;
  }

  void addFunction(const Directory& devices, const std::string& address, bool anyClass) {
    PciFunction function;
    function.address = address;
    if (!readUevent(devices, address, function, anyClass)) return;
    if (const auto group = devices.link(address + "/iommu_group"))
      function.iommuGroup = parse<unsigned>(lastPart(*group), 10);
    snapshot_.functions.emplace(address, std::move(function));
  }

  void scanFunctions() {
    const Directory devices(sysfs_ + "/bus/pci/devices");
    if (!devices.isOpen()) return skip("/bus/pci/devices", "the kernel shows no PCI bus");
    std::vector<std::string> addresses;
    devices.forEach([&](const std::string& name, bool) {
      if (isPciAddress(name))
        addresses.push_back(name);
      else
        skip("/bus/pci/devices/" + name, "its name is not a PCI address");
    });
    for (const auto& address : addresses) addFunction(devices, address, false);
    linkVfs(devices);
  }

  void readNumaNode(const Directory& devices, PciFunction& function) {
    const auto node = devices.read(function.address + "/numa_node");
    function.numaNode = std::max(-1, node ? parse<int>(*node, 10).value_or(-1) : -1);
  }

  // A PF lists its VFs as virtfn<index>. Their number is not read: the kernel answers that only
  // after it has made or removed all of them. Values that a PF shares with its VFs are read once,
  // which matters with a thousand VFs.
  void linkVfs(const Directory& devices) {
    for (auto& [id, function] : snapshot_.functions) {
      if (!function.pf.empty()) continue;  // a VF, whose PF came before it
      const std::string& address = id;
      PciFunction& pf = function;
      readNumaNode(devices, pf);
      Directory(sysfs_ + "/bus/pci/devices/" + address).forEach([&](const std::string& name, bool) {
        if (!name.starts_with(kVfLink)) return;
        const auto index = vfNumber(name);
        const auto target = devices.link(address + "/" + name);
        const auto vf = target ? snapshot_.functions.find(std::string(lastPart(*target)))
                               : snapshot_.functions.end();
        if (!index || vf == snapshot_.functions.end())
          return skip("/bus/pci/devices/" + address + "/" + name, "it does not name a VF");
        ++pf.vfCount;
        vf->second.pf = address;
        vf->second.vfIndex = *index;
        vf->second.numaNode = pf.numaNode;
      });
    }
  }

  // A function with a vDPA device counts, whatever its class.
  void addParent(const Directory& functions, const std::string& address) {
    addFunction(functions, address, true);
    const auto added = snapshot_.functions.find(address);
    if (added != snapshot_.functions.end()) readNumaNode(functions, added->second);
  }

  // Maps vDPA devices to character devices: one list of all character devices instead of a scan of
  // each vDPA device.
  std::map<std::string, std::string> vhostDevices() {
    std::map<std::string, std::string> found;
    const Directory all(sysfs_ + "/dev/char");
    all.forEach([&](const std::string& number, bool) {
      const std::string target = all.link(number).value_or("");
      const auto parts = partsOf(target);
      if (parts.size() < 2 || !parts.back().starts_with("vhost-vdpa-")) return;
      found.emplace(parts[parts.size() - 2], parts.back());
    });
    return found;
  }

  void scanVdpaBus() {
    const Directory devices(sysfs_ + "/bus/vdpa/devices");
    const Directory functions(sysfs_ + "/bus/pci/devices");
    const auto characterDevices = vhostDevices();
    devices.forEach([&](const std::string& name, bool) {
      const auto target = devices.link(name);
      if (!target) return skip("/bus/vdpa/devices/" + name, kVanished);
      VdpaDevice vdpa;
      vdpa.name = name;
      vdpa.pciAddress = functionOn(*target);
      if (const auto found = characterDevices.find(name); found != characterDevices.end()) {
        vdpa.characterDevice = found->second;
        vdpa.busDriver = "vhost_vdpa";  // no other driver makes one
      } else if (const auto driver = devices.link(name + "/driver")) {
        vdpa.busDriver = lastPart(*driver);
      } else if (!Directory(devices, name).isOpen()) {
        return skip("/bus/vdpa/devices/" + name, kVanished);
      }
      if (!vdpa.pciAddress.empty() && !snapshot_.functions.contains(vdpa.pciAddress))
        addParent(functions, vdpa.pciAddress);
      snapshot_.vdpaDevices.emplace(name, std::move(vdpa));
    });
  }

  void scanAuxiliaryBus() {
    const Directory devices(sysfs_ + "/bus/auxiliary/devices");
    devices.forEach([&](const std::string& name, bool) {
      const bool slice = name.find(".sf.") != std::string::npos;
      // Other auxiliary devices: only pds_core's matter, as its VFs' management devices.
      if (!slice && name.find(".vDPA.") == std::string::npos) return;
      const auto target = devices.link(name);
      if (!target) return skip("/bus/auxiliary/devices/" + name, kVanished);
      if (!slice) {
        snapshot_.parts.emplace(functionOn(*target), name);
        return;
      }
      AuxiliaryDevice device;
      device.name = name;
      device.pciAddress = functionOn(*target);
      if (const auto driver = devices.link(name + "/driver")) device.driver = lastPart(*driver);
      if (const auto number = devices.read(name + "/sfnum"))
        device.sfNumber = parse<unsigned>(*number, 10);
      const auto function = snapshot_.functions.find(device.pciAddress);
      if (function != snapshot_.functions.end()) device.numaNode = function->second.numaNode;
      snapshot_.auxiliary.emplace(name, std::move(device));
    });
  }

  // Skips virtual netdevs, which come and go with every pod and belong to no device.
  void scanNetdevs() {
    const Directory netdevs(sysfs_ + "/class/net");
    netdevs.forEach([&](const std::string& name, bool isLink) {
      if (!isLink) return;  // bonding_masters
      const auto target = netdevs.link(name);
      if (!target) return skip("/class/net/" + name, kVanished);
      Netdev netdev;
      netdev.name = name;
      netdev.pciAddress = functionOn(*target);
      bool known = !netdev.pciAddress.empty();
      for (const auto part : partsOf(*target)) {
        if (const auto vdpa = snapshot_.vdpaDevices.find(std::string(part));
            vdpa != snapshot_.vdpaDevices.end()) {
          vdpa->second.netdevs.push_back(name);
          known = true;
        }
        if (const auto slice = snapshot_.auxiliary.find(std::string(part));
            slice != snapshot_.auxiliary.end()) {
          slice->second.netdevs.push_back(name);
          snapshot_.netdevs.emplace(name, netdev);
          return;  // the function itself has other netdevs
        }
      }
      if (!known) return;
      const std::string state = netdevs.read(name + "/operstate").value_or("");
      netdev.linkUp = state == "up" || state == "unknown";  // some drivers don't report it
      const auto function = snapshot_.functions.find(netdev.pciAddress);
      if (function != snapshot_.functions.end()) {
        if (!isRepresentor(netdevs.read(name + "/phys_port_name").value_or(""))) {
          function->second.netdevs.push_back(name);
          if (function->second.vfCount > 0 || function->second.pf.empty())
            snapshot_.pfNetdevs.emplace(netdev.pciAddress, name);
        }
      }
      snapshot_.netdevs.emplace(name, std::move(netdev));
    });
    for (auto& [address, function] : snapshot_.functions)
      std::sort(function.netdevs.begin(), function.netdevs.end());
    for (auto& [name, vdpa] : snapshot_.vdpaDevices)
      std::sort(vdpa.netdevs.begin(), vdpa.netdevs.end());
    for (auto& [address, name] : snapshot_.pfNetdevs)
      name = snapshot_.functions.at(address).netdevs.front();
  }

  const std::string sysfs_;
  Snapshot& snapshot_;
};

}  // namespace

void scanSysfs(const std::string& sysfs, Snapshot& snapshot) {
  Scan(sysfs, snapshot).run();
}

}  // namespace vdpa::plugin
