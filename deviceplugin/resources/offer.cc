#include "deviceplugin/resources/offer.h"

#include <fmt/core.h>

#include <map>
#include <set>
#include <string>
#include <utility>

#include "common/backend.h"
#include "common/naming.h"
#include "common/uplink_config.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/resources/backend_fit.h"
#include "deviceplugin/resources/candidate.h"
#include "deviceplugin/resources/device.h"
#include "deviceplugin/resources/match.h"

namespace vdpa::plugin {
namespace {

std::string whatIs(const Candidate& candidate) {
  if (const auto* function = candidate.function) {
    std::string text;
    if (!function->pf.empty())
      text = fmt::format("VF {} of {}, ", function->vfIndex,
                         candidate.pfName.empty() ? function->pf : candidate.pfName);
    text += fmt::format("{}:{}, driver {}", function->vendor, function->device,
                        function->driver.empty() ? "none" : function->driver);
    if (candidate.vdpa) text += ", vDPA device " + candidate.vdpa->name;
    return text;
  }
  if (candidate.vdpa)
    return fmt::format("vDPA device of {}", candidate.vdpa->managementDevice.empty()
                                                ? "an unknown parent"
                                                : candidate.vdpa->managementDevice);
  return "management device " + candidate.management->name;
}

// A port without a link carries no packets of its VFs.
void checkLink(Device& device, const ResourceConfig& resource, const Candidate& candidate,
               const Snapshot& snapshot) {
  if (!resource.linkHealth || !device.unhealthy.empty() || candidate.pfName.empty()) return;
  const auto netdev = snapshot.netdevs.find(candidate.pfName);
  if (netdev != snapshot.netdevs.end() && !netdev->second.linkUp)
    device.unhealthy = fmt::format("its PF {} has no link", candidate.pfName);
}

// The resource's first selector that matches the device; else the first selector's mismatch.
std::string selectorMismatch(const ResourceConfig& resource, const Candidate& candidate) {
  const std::string provisioned = resource.provision ? vdpaDriverOf(candidate) : "";
  const unsigned pairs = resource.provision ? candidate.provisionedPairs() : candidate.queuePairs();
  std::string first;
  for (const auto& selector : resource.devices) {
    std::string reason = mismatch(selector, candidate, provisioned, pairs);
    if (reason.empty()) return "";
    if (first.empty()) first = std::move(reason);
  }
  return first;
}

std::set<std::string> portIds(const Config& config) {
  std::set<std::string> ids;
  for (const auto& resource : config.resources)
    if (resource.software)
      for (unsigned i = 0; i < resource.software->ports; ++i)
        ids.insert(softwareDeviceId(resource.name, i));
  return ids;
}

// The PCI functions that switches drive, with their resources.
std::map<std::string, std::string> uplinkFunctions(const Config& config) {
  std::map<std::string, std::string> functions;
  for (const auto& resource : config.resources)
    if (resource.software && !resource.software->uplink.pci.empty())
      functions[resource.software->uplink.pci] = resource.fullName();
  return functions;
}

void offerPorts(ResourceOffer& offer) {
  for (unsigned i = 0; i < offer.resource.software->ports; ++i) {
    Device port;
    port.id = softwareDeviceId(offer.resource.name, i);
    port.queuePairs = offer.resource.software->queuePairs;
    offer.devices.push_back(std::move(port));
  }
}

}  // namespace

Offers makeOffers(const Config& config, const Snapshot& snapshot) {
  Offers offers;
  for (const auto& resource : config.resources) offers.resources.push_back({resource, {}});
  const std::set<std::string> ports = portIds(config);
  const auto uplinks = uplinkFunctions(config);

  for (const auto& candidate : findCandidates(snapshot)) {
    Verdict verdict{candidate.id, whatIs(candidate), "", candidate.never, {}};
    if (ports.contains(candidate.id))
      verdict.reason = "a software port has the same name; rename one of them";
    if (const auto uplink =
            candidate.function ? uplinks.find(candidate.function->address) : uplinks.end();
        uplink != uplinks.end())
      verdict.reason = "it is the uplink of " + uplink->second;
    if (verdict.reason.empty()) {
      for (auto& offer : offers.resources) {
        const std::string name = offer.resource.fullName();
        if (offer.resource.devices.empty()) continue;
        std::string refusal = selectorMismatch(offer.resource, candidate);
        if (refusal.empty()) {
          BackendFit fit = fitBackend(offer.resource, candidate);
          if (fit.device) {
            checkLink(*fit.device, offer.resource, candidate, snapshot);
            verdict.resource = name;
            verdict.reason = fit.why;
            offer.devices.push_back(std::move(*fit.device));
            break;
          }
          refusal = fit.why;
        }
        verdict.refusals[name] = std::move(refusal);
      }
      if (verdict.resource.empty() && verdict.refusals.empty())
        verdict.reason = "no resource of the configuration has devices";
    }
    offers.verdicts.push_back(std::move(verdict));
  }
  for (auto& offer : offers.resources)
    if (offer.devices.empty() && offer.resource.software) offerPorts(offer);
  offers.skipped = snapshot.skipped;
  return offers;
}

std::string describe(const Offers& offers) {
  std::map<std::string, std::string> reasons;  // of offered devices
  for (const auto& verdict : offers.verdicts) reasons[verdict.id] = verdict.reason;
  std::string text;
  for (const auto& [resource, devices] : offers.resources) {
    text += fmt::format("{}: {} devices", resource.fullName(), devices.size());
    if (devices.empty()) {
      text += '\n';
      continue;
    }
    if (devices.front().backend != BackendKind::software) {
      text += '\n';
      for (const auto& device : devices) {
        text +=
            fmt::format("  {}  {}, {}", device.id, nameOf(device.backend), nameOf(device.attach));
        if (device.numaNode >= 0) text += fmt::format(", NUMA node {}", device.numaNode);
        if (const auto& reason = reasons[device.id]; !reason.empty()) text += ": " + reason;
        if (!device.unhealthy.empty()) text += "; unhealthy: " + device.unhealthy;
        text += '\n';
      }
      continue;
    }
    const auto& software = *resource.software;
    text += fmt::format(
        ", {} to {}\n  software switch: {} queue pairs, mtu {}, uplink {}, cores {}, offloads {}, "
        "storm limit {}\n",
        devices.front().id, devices.back().id, software.queuePairs, software.mtu,
        vdpa::describe(software.uplink), software.cores.empty() ? "not pinned" : software.cores,
        software.policy.offloads ? "on" : "off",
        software.policy.stormLimit == 0 ? "none" : fmt::format("{}/s", software.policy.stormLimit));
  }
  std::string rest;
  for (const auto& verdict : offers.verdicts) {
    if (!verdict.resource.empty()) continue;
    rest += fmt::format("  {} ({})", verdict.id, verdict.what);
    if (!verdict.reason.empty()) rest += ": " + verdict.reason;
    rest += '\n';
    for (const auto& [name, reason] : verdict.refusals)
      rest += fmt::format("    {}: {}\n", name, reason);
  }
  for (const auto& [path, reason] : offers.skipped)
    rest += fmt::format("  {}: skipped: {}\n", path, reason);
  if (!rest.empty()) text += "not offered:\n" + rest;
  return text;
}

}  // namespace vdpa::plugin
