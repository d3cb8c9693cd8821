// Attaching and detaching: what happens to a device between two owners, step by step, so that a
// crash at any step leaves nothing, or an owner record from which the next start resumes. Only
// Recovery also writes owner records, before anything else runs.
#pragma once

#include <functional>
#include <string>

#include "deviceplugin/datapath/attachments/attach_request.h"
#include "deviceplugin/datapath/attachments/node.h"

namespace vdpa::datapath {

class Attachments {
 public:
  explicit Attachments(Node& node) : node_(node) {}

  // These throw RefusedError for a refusal, other exceptions for a failure.
  LiveAttachment attach(const AttachRequest& request, const std::function<bool()>& cancelled);
  bool detach(const AttachmentKey& key);
  // For operators: detaches the device from any owner, also a withheld device. Without `force` only
  // if the owner's network namespace is gone. `expected`: the owner that the caller expects; empty:
  // any.
  bool release(const std::string& deviceId, const AttachmentKey& expected, bool force);
  LiveAttachment setAddresses(const AttachmentKey& key, const PodAddresses& addresses);

  // Detaches orphans and retries incomplete detaches. To be called periodically.
  void detachOrphans();
  // Makes every waiting Attach give up, now and later.
  void shutdown();

 private:
  using Clock = DeviceTable::Clock;

  // An Attach under way.
  struct Call {
    const AttachRequest& request;
    const Clock::time_point deadline;
    const std::function<bool()> calledOff;
  };
  struct Taken {
    DeviceTable::Lease lease;
    OfferedDevice offer;
  };
  Taken takeDevice(const Call& call);
  bool mayTakeOver(const OwnerRecord& record, const Owner& requester);
  OwnerRecord prepare(const Call& call, OfferedDevice offer, MacRegistry::Claim& mac);
  OfferedDevice prepareOwn(const Call& call, OfferedDevice offer);
  void prepareFor(OwnerRecord& record, const Call& call, MacRegistry::Claim& mac);
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
