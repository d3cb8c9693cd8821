#include "deviceplugin/kubelet/register_call.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "common/event_loop.h"
#include "deviceplugin.grpc.pb.h"

namespace vdpa::plugin {
namespace {

constexpr auto kDeadline = std::chrono::seconds(5);

struct Call {
  explicit Call(EventLoop& loop) : ticket(loop) {}

  EventLoop::Ticket ticket;  // first: outlives the other members
  std::unique_ptr<v1beta1::Registration::Stub> stub;
  grpc::ClientContext context;
  v1beta1::RegisterRequest request;
  v1beta1::Empty response;
};

}  // namespace

std::function<void()> registerWithKubelet(EventLoop& loop, const std::string& kubeletSocket,
                                          const std::string& endpoint, const std::string& resource,
                                          std::function<void(std::string)> done) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto call = std::make_shared<Call>(loop);
  call->stub = v1beta1::Registration::NewStub(grpc::CreateCustomChannel(
      "unix:" + kubeletSocket, grpc::InsecureChannelCredentials(), arguments));
  call->context.set_deadline(std::chrono::system_clock::now() + kDeadline);
  call->request.set_version("v1beta1");
  call->request.set_endpoint(endpoint);
  call->request.set_resource_name(resource);
  call->request.mutable_options()->set_get_preferred_allocation_available(true);
  call->stub->async()->Register(&call->context, &call->request, &call->response,
                                [call, done = std::move(done)](const grpc::Status& status) {
                                  done(status.ok() ? "" : status.error_message());
                                });
  return [weak = std::weak_ptr(call)] {
    if (const auto pending = weak.lock()) pending->context.TryCancel();
  };
}

}  // namespace vdpa::plugin
