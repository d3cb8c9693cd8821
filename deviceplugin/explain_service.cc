#include "deviceplugin/explain_service.h"

#include <fmt/core.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include "common/backend.h"
#include "common/version.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {
namespace {

constexpr auto kTimeout = std::chrono::seconds(2);

}  // namespace

plugin::v1::ListResponse toMessage(
    const Offers& found,
    const std::function<DeviceList::Health(const std::string&, const std::string&)>& healthOf) {
  plugin::v1::ListResponse state;
  const auto add = [&](const Verdict& verdict) {
    auto* message = state.add_verdicts();
    message->set_id(verdict.id);
    message->set_what(verdict.what);
    message->set_resource(verdict.resource);
    message->set_reason(verdict.reason);
    message->mutable_refusals()->insert(verdict.refusals.begin(), verdict.refusals.end());
    if (verdict.resource.empty()) return;
    const auto health = healthOf(verdict.resource, verdict.id);
    message->set_healthy(health.healthy);
    if (!health.healthy) message->set_unhealthy_reason(health.reason);
  };
  for (const auto& verdict : found.verdicts) add(verdict);
  for (const auto& [config, devices] : found.resources)
    for (const auto& device : devices)
      if (device.backend == BackendKind::software)
        add({device.id,
             "software port",
             config.fullName(),
             config.devices.empty() ? "configured" : "no device of this node matches the resource",
             {}});
  state.mutable_skipped()->insert(found.skipped.begin(), found.skipped.end());
  return state;
}

grpc::Status ExplainService::Explain(grpc::ServerContext* context,
                                     const plugin::v1::ExplainRequest* request,
                                     plugin::v1::ExplainResponse* response) {
  plugin::v1::ListResponse state;
  if (const auto status = List(context, nullptr, &state); !status.ok()) return status;
  for (const auto& verdict : state.verdicts()) {
    if (verdict.id() != request->device_id()) continue;
    *response->mutable_verdict() = verdict;
    return grpc::Status::OK;
  }
  // Skipped entries are listed by path, which ends in the device's name.
  for (const auto& [path, reason] : state.skipped())
    if (path.ends_with("/" + request->device_id()))
      return {grpc::StatusCode::NOT_FOUND, fmt::format("{} was skipped: {}", path, reason)};
  return {grpc::StatusCode::NOT_FOUND,
          fmt::format("no device on this node has the ID {}; expected the PCI address of a network "
                      "function, the name of a vDPA device or a software port",
                      request->device_id())};
}

grpc::Status ExplainService::List(grpc::ServerContext*, const plugin::v1::ListRequest*,
                                  plugin::v1::ListResponse* response) {
  auto answer = std::make_shared<std::promise<plugin::v1::ListResponse>>();
  auto future = answer->get_future();
  loop_.post([this, answer] { answer->set_value(state_()); });
  if (future.wait_for(kTimeout) != std::future_status::ready)
    return {grpc::StatusCode::UNAVAILABLE, "the plugin is busy or shutting down; try again"};
  *response = future.get();
  response->set_version(programVersion());
  return grpc::Status::OK;
}

}  // namespace vdpa::plugin
