// The checks of `vdpactl doctor`: decisions from what can be seen, as pure functions, so that a
// faked tree shows each verdict.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "deviceplugin/ctl/doctor/finding.h"
#include "deviceplugin/ctl/doctor/node.h"

namespace vdpa::ctl {

// What the node's daemons and the kubelet answered.
struct Answers {
  std::string datapathError;  // why vdpa-datapath did not answer; empty: it did
  std::string notReady;       // its reason to attach no device
  std::string pluginError;
  std::string kubeletError;
  struct Device {
    std::string id;
    std::string resource;
    bool healthy = true;
    std::string reason;
  };
  std::vector<Device> devices;
  std::vector<std::string> withheld;  // devices whose owner record can't be read
  struct Resource {
    std::string name;
    bool registered = true;
    unsigned devices = 0;
  };
  std::vector<Resource> resources;
  // By a name for people, "vdpa-worker of nic-0". Empty: the program does not report it.
  std::map<std::string, std::string> versions;
};

// Paths that differ between distributions of Kubernetes.
struct DoctorPaths {
  std::string cniDirectory = "/opt/cni/bin";
  std::string cniConfigurations = "/etc/cni/net.d";
  std::string kubeletDirectory = "/var/lib/kubelet";
  std::string runDirectory = "/run/vdpa";
  std::string stateDirectory = "/var/lib/vdpa";
};

// What is not in a file's content.
struct Probes {
  struct Space {
    uint64_t free = 0;   // bytes
    uint64_t files = 0;  // inodes that are free; the number of bytes if the file system has none
    bool readOnly = false;
  };
  std::function<std::optional<Space>(const std::string& path)> space;
  // What `program --version` prints; empty if it can't be run.
  std::function<std::string(const std::string& program)> version;
  std::function<std::string(const std::string& path)> selinuxLabel;  // empty: none
};

// All checks, in a fixed order.
std::vector<Finding> examine(const Node& node, const Answers& answers, const DoctorPaths& paths,
                             const Probes& probes, const std::string& ownVersion);

// --- One subject each; checks.cc calls them in order.
std::vector<Finding> examineKernel(const Node& node);  // kernel, modules, iommu, hugepages
std::vector<Finding> examineLimits(const Node& node, const Answers& answers);
std::vector<Finding> examineConfinement(const Node& node, const DoctorPaths& paths,
                                        const Probes& probes);  // cgroups, seccomp, selinux
std::vector<Finding> examineKubernetes(const Node& node, const Answers& answers,
                                       const DoctorPaths& paths, const Probes& probes,
                                       const std::string& ownVersion);
std::vector<Finding> examinePrograms(const Answers& answers, const std::string& ownVersion);

// Whether the node has functions of which the kernel or DPDK makes vDPA devices, or such devices.
bool hasVdpaHardware(const Node& node);

}  // namespace vdpa::ctl
