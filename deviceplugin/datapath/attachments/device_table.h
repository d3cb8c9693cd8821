// The node's devices and who works on them. Every slow action on a device holds its Lease, so that
// actions on one device run one after the other and those on different devices in parallel.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "deviceplugin/datapath/processes/worker_handle.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

// Why nothing is offered once the table is closed.
inline constexpr const char* kDrained =
    "the node was drained of vDPA devices; none is offered until vdpa-datapath is restarted";

class DeviceTable {
 public:
  using Clock = std::chrono::steady_clock;

  struct Device {
    std::optional<OfferedDevice> offer;  // none: left the set, kept for its attachment
    std::optional<OwnerRecord> record;
    std::shared_ptr<WorkerHandle> worker;
    std::string error;  // why it can't be attached

    // It has an owner, known or not.
    bool owned() const { return record || withheld(); }
    // Its owner is unknown, since its record can't be read: nobody gets it, and nothing touches it.
    bool withheld() const { return !record && !error.empty(); }
  };

  // Sole access to one device's attachment until it is destroyed.
  class Lease {
   public:
    Lease(DeviceTable& table, std::string id, uint64_t number)
        : table_(&table), id_(std::move(id)), number_(number) {}
    Lease(Lease&& other) noexcept
        : table_(std::exchange(other.table_, nullptr)),
          id_(std::move(other.id_)),
          number_(other.number_) {}
    ~Lease();
    const std::string& id() const { return id_; }

   private:
    DeviceTable* table_;
    std::string id_;
    uint64_t number_;
  };

  // Replaces the set. Returns the IDs of devices that left it for good.
  std::vector<std::string> setOffers(const std::map<std::string, OfferedDevice>& offers);
  // Why no device can be attached; empty: devices can be.
  std::string notReady() const;
  // Waits for the first set and for the device in it. Throws RefusedError.
  OfferedDevice waitOffer(const std::string& id, Clock::time_point deadline,
                          const AttachmentKey& key);

  // At start: a device found attached; with `error`, one that could not be detached.
  void restore(const OwnerRecord& record, std::shared_ptr<WorkerHandle> worker,
               std::string error = "");
  void setAttachment(const Lease& lease, const OwnerRecord& record,
                     std::shared_ptr<WorkerHandle> worker);
  // Undoing the attachment failed: it stays until a retry succeeds.
  void setError(const Lease& lease, const std::string& error);
  // At start: a device whose owner is unknown.
  void withhold(const std::string& id, const std::string& error);
  // True if the device left the set meanwhile and is now forgotten.
  bool clearAttachment(const Lease& lease);

  // Nothing if another call still works on it at the deadline.
  std::optional<Lease> lease(const std::string& id, Clock::time_point deadline);
  // The device of this container's interface, once no other call works on it; calls off an Attach
  // that runs for the interface and waits for its end. Nothing if the interface has no device.
  // Throws RefusedError (aborted) at the deadline.
  std::optional<Lease> leaseAttached(const AttachmentKey& key, Clock::time_point deadline);
  // True once the device has no owner and no call works on it; false at the deadline, or at once if
  // the Attach is called off.
  bool waitFree(const std::string& id, Clock::time_point deadline, const AttachmentKey& key);
  // A Detach has come for the running Attach of `key`, or we are stopping.
  bool calledOff(const AttachmentKey& key) const;

  std::optional<Device> find(const std::string& id) const;
  // A record for which `wanted` is true; `wanted` is called with the table's lock held.
  std::optional<OwnerRecord> findRecord(
      const std::function<bool(const OwnerRecord&)>& wanted) const;
  // It has an owner, known or not, or a call works on it.
  bool inUse(const std::string& id) const;
  std::map<std::string, Device> all() const;

  // Refuses every Attach from now on, unless there are attachments, finished or not: then it
  // changes nothing and returns who has which device.
  std::vector<std::string> close();
  bool closed() const;

  // Ends all waiting, now and later.
  void shutdown();

 private:
  friend class InterfaceClaim;

  struct Pending {
    std::string deviceId;
    bool calledOff = false;
  };
  struct Entry : Device {
    // The current lease; 0: none. A device that was forgotten under a lease and comes back has
    // none.
    uint64_t lease = 0;
  };
  Lease leaseLocked(const std::string& id, Entry& entry) REQUIRES(mutex_);
  bool calledOffLocked(const AttachmentKey& key) const REQUIRES(mutex_);
  bool leased(const std::string& id) const REQUIRES(mutex_);
  // It has no owner, and no call is working on it.
  bool free(const std::string& id) const REQUIRES(mutex_);
  std::map<std::string, Entry>::iterator findAttached(const AttachmentKey& key) REQUIRES(mutex_);
  // A call is attaching to this interface, or working on the device that it has.
  bool busy(const AttachmentKey& key) REQUIRES(mutex_);

  mutable Mutex mutex_;
  Condition changed_;
  std::map<std::string, Entry> entries_ GUARDED_BY(mutex_);
  std::map<AttachmentKey, Pending> pending_ GUARDED_BY(mutex_);
  uint64_t leases_ GUARDED_BY(mutex_) = 0;
  bool closed_ GUARDED_BY(mutex_) = false;
  bool haveDevices_ GUARDED_BY(mutex_) = false;  // the plugin has sent the first set
  bool ending_ GUARDED_BY(mutex_) = false;
};

}  // namespace vdpa::datapath
