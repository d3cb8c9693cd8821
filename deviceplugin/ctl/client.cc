#include "deviceplugin/ctl/client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

#include "common/unix_socket.h"
#include "datapath.grpc.pb.h"

namespace vdpa::ctl {
namespace {

constexpr auto kDeadline = std::chrono::seconds(5);
constexpr auto kDetachDeadline = std::chrono::seconds(60);  // stops processes
constexpr auto kDrainDeadline = std::chrono::seconds(60);   // stops processes, binds drivers

void setDeadline(grpc::ClientContext& context, std::chrono::seconds deadline = kDeadline) {
  context.set_deadline(std::chrono::system_clock::now() + deadline);
}

}  // namespace

void requireSocket(const std::string& path, const std::string& program) {
  try {
    connectUnix(path);
  } catch (const std::system_error& error) {
    const int code = error.code().value();
    if (code == EACCES || code == EPERM)
      throw std::runtime_error(
          fmt::format("cannot connect to {}: permission denied; run vdpactl as root", path));
    throw std::runtime_error(fmt::format("{}; is {} running on this node?", error.what(), program));
  }
}

std::string podOf(const datapath::v1::Owner& owner) {
  if (owner.pod_name().empty()) return owner.container_id();
  return owner.pod_namespace() + "/" + owner.pod_name();
}

struct DatapathClient::Connection {
  std::unique_ptr<datapath::v1::Datapath::Stub> stub;
};

DatapathClient::DatapathClient(const std::string& socketPath) : socketPath_(socketPath) {
  requireSocket(socketPath, "vdpa-datapath");
  connection_ = std::make_unique<Connection>(Connection{datapath::v1::Datapath::NewStub(
      grpc::CreateChannel("unix:" + socketPath, grpc::InsecureChannelCredentials()))});
}

DatapathClient::~DatapathClient() = default;

datapath::v1::ListResponse DatapathClient::list() {
  grpc::ClientContext context;
  setDeadline(context);
  datapath::v1::ListResponse response;
  check(connection_->stub->List(&context, {}, &response));
  return response;
}

datapath::v1::StatsResponse DatapathClient::stats() {
  grpc::ClientContext context;
  setDeadline(context);
  datapath::v1::StatsResponse response;
  check(connection_->stub->Stats(&context, {}, &response));
  return response;
}

datapath::v1::DetachResponse DatapathClient::detach(const datapath::v1::DetachRequest& request) {
  grpc::ClientContext context;
  setDeadline(context, kDetachDeadline);
  datapath::v1::DetachResponse response;
  check(connection_->stub->Detach(&context, request, &response));
  return response;
}

std::optional<datapath::v1::DrainResponse> DatapathClient::drain(std::string& holders) {
  grpc::ClientContext context;
  setDeadline(context, kDrainDeadline);
  datapath::v1::DrainResponse response;
  const auto status = connection_->stub->Drain(&context, {}, &response);
  if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION) {
    holders = status.error_message();
    return std::nullopt;
  }
  check(status);
  return response;
}

void DatapathClient::check(const grpc::Status& status) const {
  if (!status.ok())
    throw std::runtime_error(
        fmt::format("vdpa-datapath on {}: {}", socketPath_, status.error_message()));
}

}  // namespace vdpa::ctl
