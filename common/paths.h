// All paths below the run directory and the state directory. Derived here and nowhere else.
#pragma once

#include <set>
#include <string>

namespace vdpa {

class Paths {
 public:
  Paths(std::string runDir, std::string stateDir)
      : runDir_(std::move(runDir)), stateDir_(std::move(stateDir)) {}

  const std::string& runDir() const { return runDir_; }
  const std::string& stateDir() const { return stateDir_; }
  std::string serverSocket() const { return runDir_ + "/datapath.sock"; }
  std::string lockFile() const { return runDir_ + "/datapath.lock"; }
  std::string bootMarker() const { return runDir_ + "/boot"; }
  std::string devices() const { return runDir_ + "/devices"; }
  std::string device(const std::string& id) const { return devices() + "/" + id; }
  std::string podSocket(const std::string& id) const { return device(id) + "/vhost.sock"; }
  // As the worker creates it, before it is renamed.
  std::string preparedPodSocket(const std::string& id) const { return podSocket(id) + "~"; }
  std::string workers() const { return runDir_ + "/workers"; }
  std::string workerControl(const std::string& id) const { return workers() + "/" + id + ".sock"; }
  std::string switches() const { return runDir_ + "/switches"; }
  // `name` is the resource's file name: "vdpa.io-nic".
  std::string switchDir(const std::string& name) const { return switches() + "/" + name; }
  std::string switchControl(const std::string& name) const {
    return switchDir(name) + "/control.sock";
  }
  std::string switchPorts(const std::string& name) const { return switchDir(name) + "/ports"; }
  std::string switchPort(const std::string& name, const std::string& id) const {
    return switchPorts(name) + "/" + id + ".sock";
  }
  std::string pmds() const { return runDir_ + "/pmds"; }
  std::string pmdControl(const std::string& id) const {
    return pmds() + "/" + id + "/control.sock";
  }
  std::string pmdSocket(const std::string& id) const { return pmds() + "/" + id + "/vhost.sock"; }
  // Which can be mounted alone, and has nothing that changes anything: see ObserveServer.
  std::string observe() const { return runDir_ + "/observe"; }
  // See countCniCall().
  std::string cniCalls() const { return runDir_ + "/cni-calls"; }
  std::string provisioned() const { return stateDir_ + "/provisioned"; }
  std::string owners() const { return stateDir_ + "/owners"; }

 private:
  std::string runDir_;
  std::string stateDir_;
};

// The devices for which a worker's control socket or lock exists.
std::set<std::string> workersBelow(const Paths& paths);

// Creates the directory and its parents if they are missing, and sets the directory's mode. Throws
// std::system_error.
void makeDirectory(const std::string& path, unsigned mode);

}  // namespace vdpa
