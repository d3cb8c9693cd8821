#include "deviceplugin/datapath/backends/software_backend.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/port_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/possible_settings.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/processes/switch_handle.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

// Between two checks whether the attachment was called off.
constexpr auto kPollInterval = std::chrono::milliseconds(250);

}  // namespace

PortSettings SoftwareBackend::resolve(const std::string& id, const OfferedDevice& offer,
                                      const PortSettings& settings) const {
  return softwarePort(id, settings, offer.software.mtu);
}

OfferedDevice SoftwareBackend::prepare(const std::string& id, OfferedDevice offer,
                                       Clock::time_point deadline,
                                       const std::function<bool()>& calledOff) {
  for (;;) {
    const auto vswitch = switches_.find(offer.resource);
    if (vswitch && vswitch->waitUp(std::min(deadline, Clock::now() + kPollInterval))) {
      offer.software = vswitch->config();  // an earlier one while pods still use that
      return offer;
    }
    if (Clock::now() < deadline && !calledOff()) continue;
    throw RefusedError(Refusal::aborted, fmt::format("cannot attach {} yet: {}", id,
                                                     vswitch ? vswitch->status().reason
                                                             : "the switch of " + offer.resource +
                                                                   " does not exist"));
  }
}

std::shared_ptr<SwitchHandle> SoftwareBackend::switchOf(const OwnerRecord& record) const {
  if (auto vswitch = switches_.find(record.attachment.resource)) return vswitch;
  throw RefusedError(Refusal::aborted,
                     fmt::format("the switch of {} does not exist", record.attachment.resource));
}

void SoftwareBackend::addPort(const OwnerRecord& record) {
  switchOf(record)->addPort(record.attachment.deviceId, {record.attachment.port, record.policy});
}

std::optional<EngineAddress> SoftwareBackend::engine(const OwnerRecord& record) const {
  return EngineAddress::switchPort(switchOf(record)->portSocket(record.attachment.deviceId));
}

void SoftwareBackend::stop(const OwnerRecord& record) {
  if (const auto vswitch = switches_.find(record.attachment.resource))
    vswitch->removePort(record.attachment.deviceId);
}

void SoftwareBackend::check(const OwnerRecord& record, Differences& differences) {
  const Attachment& attachment = record.attachment;
  const auto vswitch = switches_.find(attachment.resource);
  if (!vswitch) return differences.add("the switch of {} does not exist", attachment.resource);
  const auto status = vswitch->process()->settled();
  if (!status.up) return differences.add("{}", status.reason);
  const auto ports = vswitch->readPorts();
  if (const auto port = ports.find(attachment.deviceId); port != ports.end())
    comparePorts(differences, attachment.port, port->second.settings);
  else
    differences.add("{} has no port on the switch of {}", attachment.deviceId, attachment.resource);
}

std::string SoftwareBackend::unhealthy(const std::string& id, const OfferedDevice& offer) const {
  const auto vswitch = switches_.find(offer.resource);
  if (!vswitch) return "the switch of " + offer.resource + " does not exist";
  const std::string problem = vswitch->problem();
  return problem.empty() ? vswitch->portProblem(id) : problem;
}

}  // namespace vdpa::datapath
