#include "deviceplugin/kubelet/plugin_server.h"

#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/log.h"
#include "common/unix_socket.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/kubelet/allocation.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/kubelet/list_stream.h"
#include "deviceplugin/resources/preferred_allocation.h"

namespace vdpa::plugin {
namespace {

uint64_t inodeOf(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

grpc::ServerUnaryReactor* reply(grpc::CallbackServerContext* context, const grpc::Status& status) {
  auto* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace

PluginServer::PluginServer(std::string socketPath, DeviceList& devices, AllocationOrder order,
                           const Allocation& allocation, PluginEvents events)
    : socketPath_(std::move(socketPath)),
      devices_(devices),
      order_(order),
      allocation_(allocation),
      events_(std::move(events)) {
  if (socketPath_.size() > kMaxSocketPath)
    throw std::runtime_error(fmt::format("socket path {} has {} bytes; at most {} fit", socketPath_,
                                         socketPath_.size(), kMaxSocketPath));
  grpc::ServerBuilder builder;
  int bound = 0;
  builder.AddListeningPort("unix:" + socketPath_, grpc::InsecureServerCredentials(), &bound);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
  // 0 if a starting kubelet has already deleted it: socketIsOurs() is then false.
  inode_ = inodeOf(socketPath_);
  if (!server_ || bound == 0)
    throw std::runtime_error(fmt::format("cannot listen on {}", socketPath_));
}

PluginServer::~PluginServer() {
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(20));
  server_->Wait();
  server_.reset();
  if (socketIsOurs()) ::unlink(socketPath_.c_str());
}

bool PluginServer::socketIsOurs() const {
  return inode_ != 0 && inodeOf(socketPath_) == inode_;
}

grpc::ServerUnaryReactor* PluginServer::GetDevicePluginOptions(
    Context* context, const v1beta1::Empty*, v1beta1::DevicePluginOptions* options) {
  options->set_get_preferred_allocation_available(true);
  return reply(context, grpc::Status::OK);
}

grpc::ServerWriteReactor<v1beta1::ListAndWatchResponse>* PluginServer::ListAndWatch(
    Context*, const v1beta1::Empty*) {
  events_.streamStarted();
  return new ListStream(devices_, events_.streamEnded);
}

grpc::ServerUnaryReactor* PluginServer::GetPreferredAllocation(
    Context* context, const v1beta1::PreferredAllocationRequest* request,
    v1beta1::PreferredAllocationResponse* response) {
  try {
    for (const auto& container : request->container_requests()) {
      const auto& available = container.available_deviceids();
      const auto& included = container.must_include_deviceids();
      auto* chosen = response->add_container_responses();
      for (const auto& id :
           preferDevices(devices_.choices({available.begin(), available.end()}),
                         {included.begin(), included.end()}, container.allocation_size(), order_))
        chosen->add_deviceids(id);
    }
    return reply(context, grpc::Status::OK);
  } catch (const std::invalid_argument& error) {
    return reply(context, {grpc::StatusCode::INVALID_ARGUMENT, error.what()});
  }
}

grpc::ServerUnaryReactor* PluginServer::Allocate(Context* context,
                                                 const v1beta1::AllocateRequest* request,
                                                 v1beta1::AllocateResponse* response) {
  try {
    for (const auto& container : request->container_requests())
      *response->add_container_responses() = allocation_.allocate(container);
    events_.allocated(true);
    return reply(context, grpc::Status::OK);
  } catch (const std::exception& error) {
    const std::string message = withRemedy(error);
    log::warn("Allocate refused: {}", message);
    events_.allocated(false);
    return reply(context, {grpc::StatusCode::FAILED_PRECONDITION, message});
  }
}

grpc::ServerUnaryReactor* PluginServer::PreStartContainer(Context* context,
                                                          const v1beta1::PreStartContainerRequest*,
                                                          v1beta1::PreStartContainerResponse*) {
  return reply(context, grpc::Status::OK);
}

}  // namespace vdpa::plugin
