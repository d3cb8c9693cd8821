#include "common/pod_resources.h"

#include <fmt/core.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include "podresources.grpc.pb.h"

namespace vdpa {

std::vector<PodDevice> PodResources::list(std::chrono::milliseconds timeout) {
  if (!channel_) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(64 << 20);
    channel_ = grpc::CreateCustomChannel("unix:" + socketPath_, grpc::InsecureChannelCredentials(),
                                         arguments);
  }
  const auto stub = v1::PodResourcesLister::NewStub(channel_);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  v1::ListPodResourcesResponse response;
  const auto status = stub->List(&context, v1::ListPodResourcesRequest(), &response);
  if (!status.ok()) {
    channel_.reset();
    throw std::runtime_error(fmt::format("cannot ask the kubelet for its pods' devices on {}: {}",
                                         socketPath_, status.error_message()));
  }

  std::vector<PodDevice> devices;
  for (const auto& pod : response.pod_resources())
    for (const auto& container : pod.containers())
      for (const auto& held : container.devices())
        for (const auto& id : held.device_ids())
          devices.push_back(
              {pod.namespace_(), pod.name(), container.name(), held.resource_name(), id});
  return devices;
}

std::vector<PodDevice> listPodDevices(const std::string& socketPath) {
  return PodResources(socketPath).list();
}

}  // namespace vdpa
