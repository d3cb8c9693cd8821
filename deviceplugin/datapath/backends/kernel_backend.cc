#include "deviceplugin/datapath/backends/kernel_backend.h"

#include <fcntl.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "common/backend.h"
#include "common/port_settings.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/hardware/requested_settings.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/model/refused_error.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

// Between two checks whether the device has appeared.
constexpr auto kPollInterval = std::chrono::milliseconds(20);

}  // namespace

PortSettings KernelBackend::resolve(const std::string& id, const OfferedDevice&,
                                    const PortSettings& settings) const {
  return hardwareSettings(id, settings);
}

OfferedDevice KernelBackend::prepare(const std::string& id, OfferedDevice offer,
                                     Clock::time_point deadline,
                                     const std::function<bool()>& calledOff) {
  for (;;) {
    if (!bus_.characterDevice(offer.device.vdpa).empty()) return offer;
    if (Clock::now() >= deadline || calledOff())
      throw RefusedError(Refusal::aborted,
                         fmt::format("cannot attach {} yet: {}", id, unhealthy(id, offer)));
    std::this_thread::sleep_for(kPollInterval);
  }
}

void KernelBackend::start(OwnerRecord& record) {
  const std::string node = bus_.characterDevice(record.device.vdpa);
  if (node.empty())
    throw RefusedError(Refusal::aborted,
                       fmt::format("vDPA device {} of {} is gone", record.device.vdpa,
                                   record.attachment.deviceId));
  failures_.remove(record.attachment.deviceId);  // an attached device is not retried
  if (record.device.attach == Attach::vhostVdpa) record.attachment.socket = node;
}

std::optional<EngineAddress> KernelBackend::engine(const OwnerRecord& record) const {
  if (record.device.attach != Attach::vhostUser) return std::nullopt;
  // A running worker is adopted with what it has open; a new one needs the node.
  return EngineAddress::vhostVdpa(bus_.characterDevice(record.device.vdpa));
}

void KernelBackend::startFailed(const std::string& id, const std::string& reason) {
  failures_.add(id, reason);
}

// A worker resets the device when it closes it, and so does the kernel for a pod that had the
// character device. A pod that still has it open is still in the network of its settings.
void KernelBackend::stop(const OwnerRecord& record) {
  if (record.device.attach == Attach::vhostVdpa) bus_.requireClosed(record.device.vdpa);
}

void KernelBackend::check(const OwnerRecord& record, Differences& differences) {
  const std::string node = bus_.characterDevice(record.device.vdpa);
  if (node.empty())
    differences.add("vDPA device {} has no character device", record.device.vdpa);
  else if (record.device.attach == Attach::vhostVdpa)
    differences.compare("character device", record.attachment.socket, node);
}

std::string KernelBackend::unhealthy(const std::string& id, const OfferedDevice& offer) const {
  const DeviceConfig& device = offer.device;
  if (bus_.characterDevice(device.vdpa).empty()) {
    if (device.provision)
      if (auto reason = provisioner_.problem(id); !reason.empty()) return reason;
    if (!bus_.has(device.vdpa)) return fmt::format("vDPA device {} does not exist", device.vdpa);
    return fmt::format(
        "vDPA device {} has no character device: it is bound to {}, needs vhost_vdpa", device.vdpa,
        bus_.driver(device.vdpa).empty() ? "no driver" : bus_.driver(device.vdpa));
  }
  return failures_.reason(id);
}

bool KernelBackend::retry(const std::string& id, const OfferedDevice& offer) {
  const std::string node = bus_.characterDevice(offer.device.vdpa);
  if (node.empty()) return false;
  const UniqueFd file(::open(node.c_str(), O_RDWR | O_CLOEXEC));  // EBUSY: still open elsewhere
  return file && failures_.remove(id);
}

}  // namespace vdpa::datapath
