// The backend of a pod's device: a port of a switch, a vDPA device of the kernel, a DPDK driver, or
// a netdev. One object per kind; the state of an attachment is in its owner record. Every call may
// come from any thread; those that change a device are made with its Lease held.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/model/offered_devices.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

class Backend {
 public:
  using Clock = std::chrono::steady_clock;

  virtual ~Backend() = default;

  // The settings that result from the requested ones; an absent MAC stays empty. Throws
  // RefusedError (invalidArgument) that names what this device can't do.
  virtual PortSettings resolve(const std::string& id, const OfferedDevice& offer,
                               const PortSettings& settings) const = 0;

  // Waits until the device can be attached, and returns the offer in force. Throws RefusedError
  // (aborted) with the reason at the deadline.
  virtual OfferedDevice prepare(const std::string& id, OfferedDevice offer,
                                Clock::time_point deadline,
                                const std::function<bool()>& calledOff) = 0;
  // Adds what has to be in the record before start(), so that a crash in start() can be undone.
  virtual void complete(OwnerRecord&) const {}
  // Starts an engine of the device's own, and completes `record` with what is known only now.
  virtual void start(OwnerRecord&) {}
  // Adds the device to an engine that it shares, while the worker starts, which waits for that.
  virtual void addPort(const OwnerRecord&) {}
  // Where the pod's worker finds its engine; none: it needs no worker.
  virtual std::optional<EngineAddress> engine(const OwnerRecord&) const { return std::nullopt; }
  // The worker did not become ready, for this reason.
  virtual void startFailed(const std::string&, const std::string&) {}
  // Gives the pod's interface, if there is one, the addresses and routes of `record` in place of
  // the previous ones; routes that it can't have are removed from the record.
  virtual void setAddresses(OwnerRecord&, const PodAddresses&) {}
  // At the start of the datapath: finds or restores what start() did. Ports come back with their
  // switch.
  virtual void resume(const OwnerRecord&) {}
  // Undoes start() and addPort(), and is harmless without them.
  virtual void stop(const OwnerRecord& record) = 0;

  virtual void check(const OwnerRecord& record, Differences& differences) = 0;
  // Whether a retry is due for a device that could not be started.
  virtual bool due(const std::string&) const { return false; }
  // Retries a free device. True if it is healthy again.
  virtual bool retry(const std::string&, const OfferedDevice&) { return false; }
  // Why an offered device can't be used; empty: it can.
  virtual std::string unhealthy(const std::string& id, const OfferedDevice& offer) const = 0;
};

}  // namespace vdpa::datapath
