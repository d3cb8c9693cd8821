// Makes vDPA devices where the configuration asks for it, and undoes exactly what it made: each is
// recorded on disk before it is begun. Works on a thread of its own, since drivers take their time.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "deviceplugin/datapath/device_set.h"
#include "deviceplugin/datapath/vdpa_bus.h"

namespace vdpa {

class Provisioner {
 public:
  using Devices = std::map<std::string, DeviceConfig>;  // by device ID
  struct Options {
    std::string sysfs;
    std::string records;  // directory
    std::string bootId;
    // The two netlink calls. They throw what says why it failed.
    std::function<void(const std::string& name, const std::string& managementDevice)> add;
    std::function<void(const std::string& name)> remove;
    // Whether a pod has the device: then it is left alone.
    std::function<bool(const std::string& id)> owned;
    // problem() may be another one.
    std::function<void()> changed;
  };

  Provisioner(Options options, const VdpaBus& bus);
  // Waits for the step under way; leaves everything as it is.
  ~Provisioner();

  // The whole set that should exist. What an earlier set had, and this one has not, is undone, as
  // soon as no pod has it.
  void want(Devices devices);
  // An owner has gone: what waited for that goes on.
  void wake();

  // Waits until what isn't wanted is undone; returns the device IDs for which it isn't at the
  // deadline.
  std::vector<std::string> waitUndone(std::chrono::steady_clock::time_point deadline);

  // Why the device isn't there, or not yet; empty if it is.
  std::string problem(const std::string& id) const;

 private:
  struct Record {
    std::string device;
    std::string vdpa;
    std::string pciAddress;
    std::string pciDriver;      // that was bound
    std::string foundDriver;    // before; empty: none
    std::string foundOverride;  // its driver_override before; empty: none
    std::string bootId;
  };

  void run();
  bool step();  // false: something is to be tried again
  void make(const std::string& id, const DeviceConfig& device);
  void bindDriver(const DeviceConfig& device) const;
  void undo(const Record& record) const;
  bool restoreDriver(const Record& record) const;
  void loadRecords();
  void write(const Record& record) const;
  std::string recordPath(const std::string& id) const { return options_.records + "/" + id; }
  std::string function(const std::string& address) const {
    return options_.sysfs + "/bus/pci/devices/" + address;
  }

  const Options options_;
  const VdpaBus& bus_;
  std::map<std::string, Record> records_;  // the thread's own
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Devices wanted_;
  bool told_ = false;  // the first set is there: nothing is undone before
  std::map<std::string, std::string> problems_;
  bool work_ = false;
  bool settled_ = false;           // nothing was asked for since the last step began
  std::vector<std::string> left_;  // after the last step: made, and neither wanted nor undone
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace vdpa
