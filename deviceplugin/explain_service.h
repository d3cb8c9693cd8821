// Serves vdpa.plugin.v1 (plugin.proto): gRPC's threads get their answers from the loop.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>

#include "common/event_loop.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/resources/offer.h"
#include "plugin.grpc.pb.h"

namespace vdpa::plugin {

// The decisions as a message. `healthOf` (resource, device ID) is called for offered devices.
plugin::v1::ListResponse toMessage(
    const Offers& found,
    const std::function<DeviceList::Health(const std::string&, const std::string&)>& healthOf);

class ExplainService final : public plugin::v1::Plugin::Service {
 public:
  // `state` is called on the loop's thread.
  ExplainService(EventLoop& loop, std::function<plugin::v1::ListResponse()> state)
      : loop_(loop), state_(std::move(state)) {}

  grpc::Status Explain(grpc::ServerContext* context, const plugin::v1::ExplainRequest* request,
                       plugin::v1::ExplainResponse* response) override;
  grpc::Status List(grpc::ServerContext* context, const plugin::v1::ListRequest* request,
                    plugin::v1::ListResponse* response) override;

 private:
  EventLoop& loop_;
  const std::function<plugin::v1::ListResponse()> state_;
};

}  // namespace vdpa::plugin
