// Attaching and detaching: what happens to a device between two owners, step by step, so that a
// crash at any step leaves nothing, or an owner record from which the next start goes on. Nobody
// else writes owner records but Recovery, before there is anybody else.
#pragma once

#include <functional>
#include <string>

#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/node.h"

namespace vdpa::datapath {

class Attachments {
 public:
  explicit Attachments(Node& node) : node_(node) {}

  // They throw RefusedError for what is refused, other exceptions for what failed.
  LiveAttachment attach(const AttachRequest& request, const std::function<bool()>& cancelled);
  bool detach(const AttachmentKey& key);
  // Whoever has the device, and a withheld one: for people. Without `force` only if the owner's
  // network namespace is gone. `expected`: who has it as the caller knows; empty: anybody.
  bool release(const std::string& deviceId, const AttachmentKey& expected, bool force);
  LiveAttachment setAddresses(const AttachmentKey& key, const PodAddresses& addresses);

  // Detaches what nobody will, and what was not detached whole. To be called again and again.
  void detachOrphans();
  // Makes every Attach that waits give up, for good.
  void shutdown();

 private:
  using Clock = DeviceTable::Clock;

  DeviceTable::Lease takeDevice(const AttachRequest& request, Clock::time_point deadline,
                                const std::function<bool()>& calledOff);
  bool mayTakeOver(const OwnerRecord& record, const Owner& requester);
  OfferedDevice prepareOwn(const std::string& id, OfferedDevice offer, Clock::time_point deadline,
                           const std::function<bool()>& calledOff);
  void prepareFor(OwnerRecord& record, const Settings& settings, MacRegistry::Claim& mac,
                  Clock::time_point deadline, const std::function<bool()>& calledOff);
  void waitWorker(WorkerHandle& worker, OwnerRecord& record, Backend& backend, bool once);
  void undo(const DeviceTable::Lease& lease);
  void endAttachment(const DeviceTable::Lease& lease);
  void forget(const DeviceTable::Lease& lease);
  void endWithheld(const DeviceTable::Lease& lease);
  void clear(const DeviceTable::Lease& lease);
  void keepingError(const DeviceTable::Lease& lease, const std::function<void()>& action);

  Node& node_;
};

}  // namespace vdpa::datapath
