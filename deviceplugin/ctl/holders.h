// Which pods hold devices, as far as the kubelet can be asked.
#pragma once

#include <map>
#include <string>

#include "common/pod_resources.h"

namespace vdpa::ctl {

struct Holders {
  std::map<std::string, PodDevice> byDevice;
  std::string error;  // why the kubelet could not be asked; empty: none
};

inline Holders askKubelet(const std::string& podResources) {
  Holders holders;
  try {
    for (auto& held : listPodDevices(podResources)) {
      const std::string id = held.deviceId;
      holders.byDevice.emplace(id, std::move(held));
    }
  } catch (const std::runtime_error& error) {
    holders.error = error.what();
  }
  return holders;
}

}  // namespace vdpa::ctl
