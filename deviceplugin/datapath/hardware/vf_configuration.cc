#include "deviceplugin/datapath/hardware/vf_configuration.h"

#include <array>
#include <cerrno>
#include <exception>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "common/backend.h"
#include "common/log.h"
#include "common/mac_address.h"
#include "common/netlink/error.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/hardware/requested_attributes.h"
#include "deviceplugin/datapath/hardware/vf.h"
#include "deviceplugin/datapath/hardware/vf_place.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/model/vf_values.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

// In the order of changing them; the MAC comes first and is handled separately.
constexpr std::array kParts{VfPart::vlan, VfPart::rate, VfPart::spoofCheck, VfPart::trust,
                            VfPart::linkState};

std::string onOff(const std::optional<bool>& value) {
  return !value ? "not reported" : *value ? "on" : "off";
}

// In the words of a network's configuration.
std::string describe(VfPart part, const VfValues& values) {
  switch (part) {
    case VfPart::mac:
      return "mac " + textOf(values.mac);
    case VfPart::vlan:
      return fmt::format("vlan {} (vlanQoS {}, vlanProto {})", textOf(values.vlan),
                         textOf(values.vlanQos), textOf(values.vlanProto));
    case VfPart::rate:
      return fmt::format("min_tx_rate {}, max_tx_rate {}", textOf(values.minTxRate),
                         textOf(values.maxTxRate));
    case VfPart::spoofCheck:
      return "spoofchk " + onOff(values.spoofCheck);
    case VfPart::trust:
      return "trust " + onOff(values.trust);
    case VfPart::linkState:
      return "link_state " + textOf(values.linkState);
  }
  return "";
}

bool same(VfPart part, const VfValues& a, const VfValues& b) {
  return describe(part, a) == describe(part, b);
}

VfValues wantedValues(VfValues values, const PortSettings& settings, const PortSettings& port) {
  if (settings.vlan) {
    values.vlan = port.vlan;
    values.vlanQos = port.vlanQos;
    values.vlanProto = port.vlanProto;
  }
  if (settings.minTxRate) values.minTxRate = port.minTxRate;
  if (settings.maxTxRate) values.maxTxRate = port.maxTxRate;
  if (settings.spoofCheck) values.spoofCheck = port.spoofCheck;
  if (settings.trust) values.trust = port.trust;
  if (settings.linkState) values.linkState = port.linkState;
  return values;
}

void inForce(PortSettings& port, const VfValues& values) {
  port.vlan = values.vlan;
  port.vlanQos = values.vlanQos;
  port.vlanProto = values.vlanProto;
  port.minTxRate = values.minTxRate;
  port.maxTxRate = values.maxTxRate;
  port.spoofCheck = values.spoofCheck.value_or(false);
  port.trust = values.trust.value_or(false);
  port.linkState = values.linkState;
}

bool reports(VfPart part, const VfValues& values) {
  if (part == VfPart::spoofCheck) return values.spoofCheck.has_value();
  if (part == VfPart::trust) return values.trust.has_value();
  return true;
}

// Nothing if this part is not among them.
const netlink::Error* refusalOf(VfPart part, const std::vector<Vf::Refused>& refused) {
  for (const auto& [which, error] : refused)
    if (which == part) return &error;
  return nullptr;
}

// For a device without settings, an empty request is satisfied.
VfValues noValues() {
  VfValues values = unreportedVf();
  values.spoofCheck = values.trust = false;
  return values;
}

}  // namespace

VfValues VfConfiguration::valuesOf(const PortSettings& port) {
  VfValues values = port;
  values.mtu.reset();
  return values;
}

std::string VfConfiguration::whyNoVf(const std::optional<Vf>& vf) {
  return vf ? fmt::format("the driver {} of its PF {} has no VF settings", vf->place().driver,
                          vf->place().pf)
            : "it is not a VF of a PF that has a netdev on this node";
}

VfConfiguration::Access VfConfiguration::kernels(
    const std::string& sysfs,
    std::function<std::optional<MacAddress>(const std::string& vdpa)> vdpaMac,
    std::function<bool(const std::string&, const MacAddress&)> setVdpaMac,
    std::function<unsigned(const std::string& vdpa)> vdpaMtu) {
  return {[sysfs](const std::string& address) {
            return std::filesystem::exists(sysfs + "/bus/pci/devices/" + address);
          },
          [sysfs](const std::string& address) { return findVf(sysfs, address); },
          std::move(vdpaMac), std::move(setVdpaMac), std::move(vdpaMtu)};
}

VfConfiguration::Look VfConfiguration::look(const std::string& pciAddress) const {
  Look now{access_.find(pciAddress), std::nullopt};
  if (now.vf) now.values = now.vf->get();
  return now;
}

VdpaFacts VfConfiguration::factsOf(const std::string& vdpa) const {
  return {access_.vdpaMac ? access_.vdpaMac(vdpa) : std::nullopt,
          access_.vdpaMtu ? access_.vdpaMtu(vdpa) : 0};
}

void VfConfiguration::plan(OwnerRecord& record, const PortSettings& settings,
                           const std::optional<MacAddress>& madeWith) const {
  Attachment& attachment = record.attachment;
  const Look now = look(record.device.pciAddress);
  const VfValues found = now.values.value_or(noValues());
  const VfValues wanted = wantedValues(found, settings, attachment.port);
  record.found.vf = found;
  if (record.device.attach == Attach::vhostVdpa && settings.mtu)
    checkMtu(attachment.deviceId, record.device, *settings.mtu, factsOf(record.device.vdpa));
  planMac(record, now.values, madeWith);
  for (const VfPart part : kParts) {
    if (same(part, wanted, found)) continue;
    // A link that cannot be disabled is enabled.
    if (part == VfPart::linkState && wanted.linkState == LinkState::enable && !now.values) continue;
    if (!now.values)
      throw RefusedError(Refusal::invalidArgument,
                         fmt::format("cannot set up {}: {} is not possible: {}; remove it from the "
                                     "network's configuration",
                                     attachment.deviceId, describe(part, wanted), whyNoVf(now.vf)));
    record.found.vfChanges.push_back(part);
  }
  inForce(attachment.port, wanted);
}

void VfConfiguration::apply(OwnerRecord& record) const {
  const bool macByVdpa = hasMacToSet(record) && applyVdpaMac(record);
  applyToVf(record);
  if (hasMacToSet(record) && !macByVdpa && !hasVfMac(record)) keepOwnMac(record);
}

void VfConfiguration::applyToVf(OwnerRecord& record) const {
  if (record.found.vfChanges.empty()) return;
  const std::string& id = record.attachment.deviceId;
  const VfValues wanted = valuesOf(record.attachment.port);
  const std::vector<VfPart> parts = record.found.vfChanges;
  auto vf = access_.find(record.device.pciAddress);
  std::vector<Vf::Refused> refused;
  std::optional<VfValues> now;
  if (vf) {
    refused = vf->set(wanted, parts);
    now = vf->get();
  }
  const auto requireSet = [&](VfPart part) {
    if (!vf)
      throw RefusedError(Refusal::aborted, fmt::format("cannot set up {}: its PF is gone", id));
    if (const auto* error = refusalOf(part, refused))
      throw RefusedError(
          Refusal::invalidArgument,
          fmt::format("cannot set up {}: {} refuses {}: {}; remove it from the network's "
                      "configuration, or see the kernel's log on the node",
                      id, describe(vf->place()), describe(part, wanted), reason(*error)));
    if (now && (!reports(part, *now) || same(part, wanted, *now))) return;
    throw RefusedError(
        Refusal::invalidArgument,
        fmt::format("cannot set up {}: {} was set, but {}; its driver ignores it: remove it from "
                    "the network's configuration",
                    id, describe(part, wanted),
                    now ? fmt::format("{} has {}", describe(vf->place()), describe(part, *now))
                        : "the VF is gone"));
  };
  for (const VfPart part : parts) try {
      requireSet(part);
    } catch (const RefusedError& error) {
      if (part != VfPart::mac || record.macAsked) throw;
      log::info("{} keeps its own MAC: {}", id, error.what());
      std::erase(record.found.vfChanges, part);
    }
}

void VfConfiguration::restore(const OwnerRecord& record) const {
  std::exception_ptr failure;
  try {
    restoreVf(record);
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  restoreVdpaMac(record);
  if (failure) std::rethrow_exception(failure);
}

void VfConfiguration::restoreVf(const OwnerRecord& record) const {
  const std::string& address = record.device.pciAddress;
  const std::string& id = record.attachment.deviceId;
  const VfValues& found = record.found.vf;
  std::vector<VfPart> parts(record.found.vfChanges.rbegin(), record.found.vfChanges.rend());
  if (parts.empty()) return;
  const auto requireReach = [&](const std::optional<VfValues>& values) {
    if (values || !access_.present(address)) return;
    throw std::runtime_error(
        fmt::format("cannot restore {} of {}: {}; return the PF to the node, or remove the VF",
                    describe(parts.front(), found), id, whyNoVf(access_.find(address))));
  };
  Look now = look(address);
  requireReach(now.values);
  if (!now.values) return;
  std::erase_if(parts, [&](VfPart part) { return same(part, found, *now.values); });
  if (parts.empty()) return;
  const auto refused = now.vf->set(found, parts);
  const auto after = now.vf->get();
  requireReach(after);
  if (!after) return;
  const netlink::Error ignored{EIO, ""};
  std::exception_ptr failure;
  // All, since a driver may change one part with another.
  for (const VfPart part : record.found.vfChanges) {
    if (same(part, found, *after)) continue;
    const auto* error = refusalOf(part, refused);
    const auto problem = netlink::failure(
        error ? *error : ignored, "cannot restore {} of {}, {}: it has {}", describe(part, found),
        id, describe(now.vf->place()), describe(part, *after));
    // Some drivers can't unset a MAC; the next owner's replaces it.
    if (part == VfPart::mac && !found.mac)
      log::warn("{}", problem.what());
    else if (!failure)
      failure = std::make_exception_ptr(problem);
  }
  if (failure) std::rethrow_exception(failure);
}

void VfConfiguration::check(const OwnerRecord& record, Differences& differences) const {
  const FoundHardware& found = record.found;
  if (found.vdpaMac && access_.setVdpaMac)
    if (const auto now = access_.vdpaMac(record.device.vdpa))
      differences.compare("mac of vDPA device " + record.device.vdpa,
                          textOf(record.attachment.port.mac), textOf(now));
  if (found.vfChanges.empty()) return;
  const auto [vf, now] = look(record.device.pciAddress);
  if (!now) return differences.add("the PF of {} is gone", record.attachment.deviceId);
  const VfValues wanted = valuesOf(record.attachment.port);
  for (const VfPart part : found.vfChanges)
    if (reports(part, *now) && !same(part, wanted, *now))
      differences.add("{} has {}; expected {}", describe(vf->place()), describe(part, *now),
                      describe(part, wanted));
}

}  // namespace vdpa::datapath
