#include "deviceplugin/resources/candidate.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/resources/preferred_allocation.h"

namespace vdpa::plugin {
namespace {

constexpr uint32_t kNetworkClass = 0x02;  // the upper byte of a PCI class code

const ManagementDevice* managementOf(const Snapshot& snapshot, const std::string& name) {
  const auto found = snapshot.managementDevices.find(name);
  return found == snapshot.managementDevices.end() ? nullptr : &found->second;
}

std::string hostUse(const Snapshot& snapshot, const std::vector<std::string>& netdevs) {
  for (const auto& name : netdevs) {
    const auto netdev = snapshot.netdevs.find(name);
    if (netdev != snapshot.netdevs.end() && !netdev->second.hostUse.empty())
      return fmt::format("the host uses its netdev {}: {}", name, netdev->second.hostUse);
  }
  return "";
}

std::string neverOf(const Snapshot& snapshot, const Candidate& candidate) {
  if (const auto* vdpa = candidate.vdpa) {
    if (!vdpa->isNetwork)
      return fmt::format("its vDPA device {} is not a network device", vdpa->name);
    if (auto use = hostUse(snapshot, vdpa->netdevs); !use.empty()) return use;
  }
  if (candidate.slice)
    if (auto use = hostUse(snapshot, candidate.slice->netdevs); !use.empty()) return use;
  if (const auto* function = candidate.function) {
    if (function->classCode >> 16 != kNetworkClass && !candidate.vdpa)
      return fmt::format("is not a network function: PCI class {:06x}", function->classCode);
    if (function->vfCount > 0) return fmt::format("is a PF with {} VFs", function->vfCount);
    if (auto use = hostUse(snapshot, function->netdevs); !use.empty()) return use;
  }
  return "";
}

Candidate ofFunction(const Snapshot& snapshot, const PciFunction& function) {
  Candidate candidate;
  candidate.id = function.address;
  candidate.function = &function;
  candidate.numaNode = function.numaNode;
  candidate.management = managementOf(snapshot, "pci/" + function.address);
  if (const auto part = snapshot.parts.find(function.address);
      part != snapshot.parts.end() && !candidate.management)
    candidate.management = managementOf(snapshot, "auxiliary/" + part->second);
  if (function.pf.empty()) return candidate;
  if (const auto pf = snapshot.functions.find(function.pf); pf != snapshot.functions.end())
    candidate.pf = &pf->second;
  if (const auto name = snapshot.pfNetdevs.find(function.pf); name != snapshot.pfNetdevs.end())
    candidate.pfName = name->second;
  return candidate;
}

// A slice has the NUMA node and PF of its function.
void addSlice(const Snapshot& snapshot, const std::string& managementDevice, Candidate& candidate) {
  constexpr std::string_view kBus = "auxiliary/";
  if (!managementDevice.starts_with(kBus)) return;
  const auto slice = snapshot.auxiliary.find(managementDevice.substr(kBus.size()));
  if (slice == snapshot.auxiliary.end()) return;
  candidate.slice = &slice->second;
  candidate.numaNode = slice->second.numaNode;
  if (const auto name = snapshot.pfNetdevs.find(slice->second.pciAddress);
      name != snapshot.pfNetdevs.end())
    candidate.pfName = name->second;
}

Candidate ofVdpaDevice(const Snapshot& snapshot, const VdpaDevice& vdpa) {
  Candidate candidate;
  candidate.id = vdpa.name;
  candidate.vdpa = &vdpa;
  candidate.management = managementOf(snapshot, vdpa.managementDevice);
  const auto function = snapshot.functions.find(vdpa.pciAddress);
  if (function != snapshot.functions.end()) candidate.numaNode = function->second.numaNode;
  addSlice(snapshot, vdpa.managementDevice, candidate);
  return candidate;
}

// The management device of a function as a whole.
bool isWhole(const Snapshot& snapshot, const std::string& managementDevice,
             const std::string& address) {
  const auto part = snapshot.parts.find(address);
  return managementDevice == "pci/" + address ||
         (part != snapshot.parts.end() && managementDevice == "auxiliary/" + part->second);
}

}  // namespace

unsigned Candidate::queuePairs() const {
  return vdpa ? vdpa->queuePairs : provisionedPairs();
}

unsigned Candidate::provisionedPairs() const {
  if (vdpa && !hasProvisionedDevice()) return vdpa->queuePairs;
  if (management && management->maxVirtqueues > 0)
    return std::max(1u, management->maxVirtqueues / 2);
  return 0;
}

bool Candidate::hasProvisionedDevice() const {
  return vdpa && management && vdpa->name == provisionedName(management->name);
}

std::string provisionedName(const std::string& managementDevice) {
  return "vdpa-" + managementDevice.substr(managementDevice.rfind('/') + 1);
}

std::vector<Candidate> findCandidates(const Snapshot& snapshot) {
  std::map<std::string, Candidate> candidates;
  for (const auto& [address, function] : snapshot.functions)
    candidates.emplace(address, ofFunction(snapshot, function));

  // A function's own vDPA device belongs to that function's candidate; any other is a candidate
  // itself. A device on a slice of a function (a scalable function) has the function's address but
  // is only a part of it.
  std::set<std::string> makers;
  for (const auto& [name, vdpa] : snapshot.vdpaDevices) {
    makers.insert(vdpa.managementDevice);
    const auto function = candidates.find(vdpa.pciAddress);
    const bool whole = function != candidates.end() && !function->second.vdpa &&
                       (vdpa.managementDevice.empty() ||
                        isWhole(snapshot, vdpa.managementDevice, vdpa.pciAddress));
    if (whole)
      function->second.vdpa = &vdpa;
    else
      candidates.emplace(name, ofVdpaDevice(snapshot, vdpa));
  }
  // Management devices without a function of their own that could make their only device.
  for (const auto& [name, management] : snapshot.managementDevices) {
    if (!management.makesNetwork || makers.contains(name) || !management.pciAddress.empty())
      continue;
    Candidate candidate;
    candidate.id = provisionedName(name);
    candidate.management = &management;
    addSlice(snapshot, name, candidate);
    candidates.emplace(candidate.id, std::move(candidate));
  }

  std::vector<Candidate> sorted;
  for (auto& [id, candidate] : candidates) {
    candidate.never = neverOf(snapshot, candidate);
    sorted.push_back(std::move(candidate));
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const Candidate& a, const Candidate& b) { return naturalLess(a.id, b.id); });
  return sorted;
}

}  // namespace vdpa::plugin
