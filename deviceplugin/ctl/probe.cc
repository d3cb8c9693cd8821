// vdpactl probe, for the manifests' exec probes: the kubelet's own gRPC probes don't support unix
// sockets.
#include <fmt/core.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <stdexcept>
#include <string>

#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "health.grpc.pb.h"

namespace vdpa::ctl {

bool probe(const std::string& socketPath, const std::string& service) {
  requireSocket(socketPath, "its daemon");
  const auto stub = grpc::health::v1::Health::NewStub(
      grpc::CreateChannel("unix:" + socketPath, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const auto status = stub->Check(&context, request, &response);
  if (!status.ok())
    throw std::runtime_error(fmt::format("{}: {}", socketPath, status.error_message()));
  fmt::print("{}: {}\n", socketPath,
             grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status()));
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

}  // namespace vdpa::ctl
