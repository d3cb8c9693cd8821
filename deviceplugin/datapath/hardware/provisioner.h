// Makes vDPA devices where the configuration asks for it, and removes exactly those: each is
// recorded on disk before it is made. Works on its own thread, since drivers are slow.
//
// A device whose attributes differ from the wanted ones, because the configuration has changed or a
// pod had it with a network's MAC or MTU, is remade as soon as no pod has it. The record holds its
// attributes and is written before they change: a device whose making was interrupted is made
// again. A parent keeps an MTU that a device was made with (mlx5_vdpa sets its function's): the
// parent's previous MTU is learned and recorded first, and restored before the record is removed.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/atomic_file.h"
#include "common/mutex.h"
#include "deviceplugin/datapath/hardware/vdpa_bus.h"
#include "deviceplugin/datapath/model/offered_devices.h"

namespace vdpa::datapath {

class Provisioner {
 public:
  using Devices = std::map<std::string, DeviceConfig>;  // by device ID
  struct Options {
    std::string sysfs;
    std::string records;  // directory
    std::string bootId;
    // The two netlink calls. Their exceptions say why a call failed; add() returns the attributes
    // that the kernel accepted.
    std::function<VdpaAttributes(const std::string& name, const std::string& managementDevice,
                                 const VdpaAttributes& attributes)>
        add;
    std::function<void(const std::string& name)> remove;
    // A device's MTU, 0 if it has none.
    std::function<unsigned(const std::string& name)> mtu = {};
    // Whether a pod has the device, which is then left alone.
    std::function<bool(const std::string& id)> owned;
    // Called when problem() may have changed.
    std::function<void()> changed;
  };

  Provisioner(Options options, const VdpaBus& bus);
  // Waits for the step under way; leaves everything as it is.
  ~Provisioner();

  // The whole set that should exist. Devices of an earlier set that are not in this one are undone
  // as soon as no pod has them.
  void want(Devices devices);
  // An owner is gone: resumes what waited for that. To be called without its Lease.
  void wake();
  // For the holder of the device's Lease: remakes it unless it has these attributes. False if that
  // was not needed, or if the device is not ours or not made yet. On failure it gets its own
  // attributes back, if possible. Throws RefusedError (aborted) at the deadline, else an exception
  // that says why it failed.
  bool remake(const std::string& id, const DeviceConfig& device, const VdpaAttributes& attributes,
              std::chrono::steady_clock::time_point deadline);
  // Whether we have made it since the node's start. A device of this name that another program made
  // is not changed.
  bool isOurs(const std::string& id) const { return ours(id).has_value(); }

  // Waits until unwanted devices are undone; returns the IDs of those that are not at the deadline.
  std::vector<std::string> waitUndone(std::chrono::steady_clock::time_point deadline);

  // Why the device does not exist, or not yet; empty if it does.
  std::string problem(const std::string& id) const;

 private:
  // Held while a device and its record are changed, one at a time for each device: the holder of
  // its Lease then never finds it half made. False at the deadline. Taken without mutex_.
  class Turn {
   public:
    Turn(Provisioner& provisioner, const std::string& id,
         std::optional<std::chrono::steady_clock::time_point> deadline = std::nullopt);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    explicit operator bool() const { return has_; }

   private:
    Provisioner& provisioner_;
    const std::string id_;
    bool has_ = false;
  };

  struct Record {
    std::string device;
    std::string vdpa;
    std::string pciAddress;
    std::string pciDriver;      // the one that we bound
    std::string foundDriver;    // the one before; empty: none
    std::string foundOverride;  // its driver_override before; empty: none
    std::string bootId;
    VdpaAttributes attributes;
    VdpaAttributes taken;  // those that the kernel accepted, once it is made
    bool made = true;      // false: its making has begun; it may have the attributes from before
    std::string managementDevice;
    // The parent's, before a device with another MTU was made. Absent: not changed. 0: the kernel
    // did not report it.
    std::optional<unsigned> foundMtu;
  };

  void run();
  bool step();  // false: something is to be retried
  bool undoUnwanted(const Devices& wanted);
  void make(const std::string& id, const DeviceConfig& device);
  void makeNow(const std::string& id, const DeviceConfig& device, const VdpaAttributes& attributes);
  void makeOwn(const std::string& id, const DeviceConfig& device);
  Record recordFor(const std::string& id, const DeviceConfig& device) const;
  void clearWay(const DeviceConfig& device, const Record& record);
  void learnMtu(const DeviceConfig& device, Record& record);
  void restoreMtu(const Record& record) const;
  bool hasParent(const Record& record) const;
  static std::string orNone(const std::string& driver);
  static std::string driverOverride(const std::string& function);
  static void checkUnused(const std::string& function, const std::string& driver);
  void bindDriver(const DeviceConfig& device) const;
  void undo(const std::string& id);
  bool restoreDriver(const Record& record) const;
  std::map<std::string, Record> readRecords() const;
  void write(const Record& record, Durability durability) const;
  void keep(const Record& record, Durability durability);
  std::optional<Record> ours(const std::string& id) const;
  std::string recordPath(const std::string& id) const { return options_.records + "/" + id; }
  std::string function(const std::string& address) const {
    return options_.sysfs + "/bus/pci/devices/" + address;
  }

  const Options options_;
  const VdpaBus& bus_;
  mutable Mutex mutex_;
  Condition changed_;
  std::set<std::string> making_ GUARDED_BY(mutex_);  // devices that have a Turn
  std::map<std::string, Record> records_ GUARDED_BY(mutex_);
  Devices wanted_ GUARDED_BY(mutex_);
  // The first set has come: nothing is undone before.
  bool haveDevices_ GUARDED_BY(mutex_) = false;
  std::map<std::string, std::string> problems_ GUARDED_BY(mutex_);
  bool work_ GUARDED_BY(mutex_) = false;
  // Nothing was asked for since the last step began.
  bool settled_ GUARDED_BY(mutex_) = false;
  // After the last step: made, not wanted, not undone yet.
  std::vector<std::string> left_ GUARDED_BY(mutex_);
  bool stop_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace vdpa::datapath
