// The DevicePlugin service of one resource on its socket in the kubelet's directory.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "deviceplugin.grpc.pb.h"
#include "deviceplugin/kubelet/allocation.h"

namespace vdpa::plugin {

struct PluginEvents {
  // On gRPC threads.
  std::function<void()> streamStarted;
  std::function<void()> streamEnded;
  std::function<void(bool allowed)> allocated;
};

class PluginServer : private v1beta1::DevicePlugin::CallbackService {
 public:
  // Listens; throws std::runtime_error naming the socket. References outlive the server.
  PluginServer(std::string socketPath, DeviceList& devices, AllocationOrder order,
               const Allocation& allocation, PluginEvents events);
  // Ends every stream and removes the socket, unless another one has replaced it.
  ~PluginServer();

  // Whether the socket file is still the one that this server made.
  bool socketIsOurs() const;

 private:
  using Context = grpc::CallbackServerContext;
  grpc::ServerUnaryReactor* GetDevicePluginOptions(Context* context, const v1beta1::Empty*,
                                                   v1beta1::DevicePluginOptions* options) override;
  grpc::ServerWriteReactor<v1beta1::ListAndWatchResponse>* ListAndWatch(
      Context* context, const v1beta1::Empty*) override;
  grpc::ServerUnaryReactor* GetPreferredAllocation(
      Context* context, const v1beta1::PreferredAllocationRequest* request,
      v1beta1::PreferredAllocationResponse* response) override;
  grpc::ServerUnaryReactor* Allocate(Context* context, const v1beta1::AllocateRequest* request,
                                     v1beta1::AllocateResponse* response) override;
  grpc::ServerUnaryReactor* PreStartContainer(Context* context,
                                              const v1beta1::PreStartContainerRequest*,
                                              v1beta1::PreStartContainerResponse*) override;

  std::string socketPath_;
  DeviceList& devices_;
  const AllocationOrder order_;
  const Allocation& allocation_;
  PluginEvents events_;
  std::unique_ptr<grpc::Server> server_;
  uint64_t inode_ = 0;
};

}  // namespace vdpa::plugin
