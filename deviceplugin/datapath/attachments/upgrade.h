// After an update, replaces engines of the previous version under their running pods. The workers
// keep what the pods have set up, and resume with the new engine where the old one stopped.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "deviceplugin/datapath/attachments/node.h"

namespace vdpa::datapath {

class Upgrade {
 public:
  explicit Upgrade(Node& node) : node_(node) {}

  // Gives switches their configuration, and ends those that nobody needs; then replaces running
  // engines of another version with the installed programs, one at a time: the next once the
  // workers of the previous one run again. To be called at the start and after a new
  // set of devices, from one thread. If an engine doesn't come up, no further engine is replaced.
  void run(const std::stop_token& stop);

 private:
  // A switch or a vdpa-pmd, as its upgrade sees it.
  struct UpgradableProcess {
    std::string title;
    std::string program;
    std::function<std::shared_ptr<SupervisedProcess>()> process;
    std::function<bool(const DeviceTable::Device& device)> serves;
    std::function<void()> upgrade;
    std::function<void()> go;  // called once its workers are back
  };
  std::vector<UpgradableProcess> upgradableProcesses();
  void upgradeProcess(const UpgradableProcess& upgradable, const std::stop_token& stop);
  std::map<std::string, std::shared_ptr<WorkerHandle>> runningWorkers(
      const UpgradableProcess& upgradable, const std::stop_token& stop) const;

  Node& node_;
  bool failed_ = false;  // of the thread of run() alone
};

}  // namespace vdpa::datapath
