// Answers Allocate by a look-up: calls no other process and waits for nothing.
#pragma once

#include <string>

#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/device_list.h"

namespace v1beta1 {
class ContainerAllocateRequest;
class ContainerAllocateResponse;
}  // namespace v1beta1

namespace vdpa::plugin {

class Allocation {
 public:
  // `resource` is the full name; `runDirectory` the host's /run/vdpa. Both references outlive this.
  Allocation(std::string resource, std::string runDirectory, const DeviceList& devices,
             DeviceInfoFiles& files);

  // Throws std::invalid_argument with a message for the pod's owner; a refusal is final for the
  // pod.
  v1beta1::ContainerAllocateResponse allocate(
      const v1beta1::ContainerAllocateRequest& request) const;

 private:
  Device usable(const std::string& id) const;

  std::string resource_;
  std::string runDirectory_;
  const DeviceList& devices_;
  DeviceInfoFiles& files_;
};

}  // namespace vdpa::plugin
