// vdpactl explain
#include <fmt/core.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include "common/json.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/table.h"
#include "plugin.grpc.pb.h"

namespace vdpa::ctl {
namespace {

using plugin::v1::Verdict;

constexpr auto kDeadline = std::chrono::seconds(5);

std::unique_ptr<plugin::v1::Plugin::Stub> connect(const Options& options) {
  requireSocket(options.pluginSocket, "vdpa-device-plugin");
  return plugin::v1::Plugin::NewStub(
      grpc::CreateChannel("unix:" + options.pluginSocket, grpc::InsecureChannelCredentials()));
}

void setDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + kDeadline);
}

void check(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

nlohmann::json toJson(const Verdict& verdict) {
  nlohmann::json json{{"device", verdict.id()},
                      {"what", verdict.what()},
                      {"resource", verdict.resource()},
                      {"reason", verdict.reason()}};
  json["refusals"] = nlohmann::json::object();
  for (const auto& [resource, reason] : verdict.refusals()) json["refusals"][resource] = reason;
  if (verdict.resource().empty()) return json;
  json["healthy"] = verdict.healthy();
  json["unhealthyReason"] = verdict.unhealthy_reason();
  return json;
}

// Refusals sorted by resource: a message's map has no order.
std::map<std::string, std::string> refusalsOf(const Verdict& verdict) {
  return {verdict.refusals().begin(), verdict.refusals().end()};
}

void printOne(const Verdict& verdict) {
  fmt::print("{}: {}\n", verdict.id(), verdict.what());
  if (!verdict.resource().empty()) {
    fmt::print("  offered as {}: {}\n", verdict.resource(), verdict.reason());
    if (!verdict.healthy()) fmt::print("  unhealthy: {}\n", verdict.unhealthy_reason());
  } else if (!verdict.reason().empty()) {
    fmt::print("  not offered: {}\n", verdict.reason());
  } else {
    fmt::print("  not offered\n");
  }
  for (const auto& [resource, reason] : refusalsOf(verdict))
    fmt::print("  resource {}: {}\n", resource, reason);
}

void printAll(const plugin::v1::ListResponse& list) {
  Table resources({"RESOURCE", "KUBELET", "DEVICES", "HEALTHY"});
  for (const auto& resource : list.resources())
    resources.add({resource.name(), resource.registered() ? "registered" : "not registered",
                   std::to_string(resource.devices()), std::to_string(resource.healthy())});
  Table devices({"DEVICE", "WHAT", "RESOURCE", "WHY"});
  for (const auto& verdict : list.verdicts()) {
    std::string why = verdict.reason();
    if (!verdict.resource().empty() && !verdict.healthy())
      why = "unhealthy: " + verdict.unhealthy_reason();
    if (verdict.resource().empty())
      for (const auto& [resource, reason] : refusalsOf(verdict))
        why += fmt::format("{}{}: {}", why.empty() ? "" : "; ", resource, reason);
    devices.add({verdict.id(), verdict.what(), verdict.resource(), why});
  }
  fmt::print("{}\n{}", resources.text(), devices.text());
  for (const auto& [path, reason] :
       std::map<std::string, std::string>(list.skipped().begin(), list.skipped().end()))
    fmt::print("skipped {}: {}\n", path, reason);
}

}  // namespace

plugin::v1::ListResponse listVerdicts(const Options& options) {
  const auto stub = connect(options);
  grpc::ClientContext context;
  setDeadline(context);
  plugin::v1::ListResponse list;
  check(stub->List(&context, {}, &list));
  return list;
}

void explain(const Options& options, const std::string& deviceId) {
  if (deviceId.empty()) {
    const auto list = listVerdicts(options);
    if (options.output != Output::json) return printAll(list);
    auto array = nlohmann::json::array();
    for (const auto& verdict : list.verdicts()) array.push_back(toJson(verdict));
    fmt::print("{}\n", jsonText(array, 2));
    return;
  }
  const auto stub = connect(options);
  grpc::ClientContext context;
  setDeadline(context);
  plugin::v1::ExplainRequest request;
  request.set_device_id(deviceId);
  plugin::v1::ExplainResponse response;
  check(stub->Explain(&context, request, &response));
  if (options.output == Output::json)
    fmt::print("{}\n", jsonText(toJson(response.verdict()), 2));
  else
    printOne(response.verdict());
}

}  // namespace vdpa::ctl
