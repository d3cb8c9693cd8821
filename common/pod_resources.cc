// See the header.
#include "common/pod_resources.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "podresources.grpc.pb.h"

namespace vdpa {

std::vector<PodDevice> listPodDevices(const std::string& socketPath,
                                      std::chrono::milliseconds timeout) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(64 << 20);
  const auto channel = grpc::CreateCustomChannel("unix:" + socketPath,
                                                 grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::PodResourcesLister::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  v1::ListPodResourcesResponse response;
  const auto status = stub->List(&context, v1::ListPodResourcesRequest(), &response);
  if (!status.ok())
    throw std::runtime_error(fmt::format("cannot ask the kubelet for its pods' devices on {}: {}",
                                         socketPath, status.error_message()));

  std::vector<PodDevice> devices;
  for (const auto& pod : response.pod_resources())
    for (const auto& container : pod.containers())
      for (const auto& held : container.devices())
        for (const auto& id : held.device_ids())
          devices.push_back(
              {pod.namespace_(), pod.name(), container.name(), held.resource_name(), id});
  return devices;
}

}  // namespace vdpa
