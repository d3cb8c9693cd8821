// See the header.
#include "cni/datapath_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include "cni/error.h"
#include "common/unix_socket.h"

namespace vdpa::cni {
namespace {

// Attach waits a few seconds for what passes by itself; the others answer at once.
constexpr int kAttachSeconds = 30;
constexpr int kCallSeconds = 10;

constexpr const char* kRemedy = "is the vdpa-datapath DaemonSet running on this node?";

Code codeOf(grpc::StatusCode status) {
  switch (status) {
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::NOT_FOUND:
      return Code::invalidConfig;
    case grpc::StatusCode::ALREADY_EXISTS:
      return Code::alreadyAttached;
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return Code::tryAgainLater;
    default:
      return Code::ioFailure;
  }
}

}  // namespace

DatapathClient::DatapathClient(std::string socketPath) : socketPath_(std::move(socketPath)) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  stub_ = datapath::v1::Datapath::NewStub(grpc::CreateCustomChannel(
      "unix:" + socketPath_, grpc::InsecureChannelCredentials(), arguments));
}

// A missing socket is told in plain words and at once, before gRPC's own retries.
void DatapathClient::requireSocket() const {
  try {
    connectUnix(socketPath_);
  } catch (const std::exception& error) {
    throw Error(Code::tryAgainLater, fmt::format("{}; {}", error.what(), kRemedy));
  }
}

template <typename Method, typename Request, typename Response>
void DatapathClient::call(Method method, const Request& request, Response& response, int seconds) {
  requireSocket();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
  const grpc::Status status = (stub_.get()->*method)(&context, request, &response);
  if (status.ok()) return;
  const bool silent = status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
                      status.error_code() == grpc::StatusCode::UNAVAILABLE;
  throw Error(codeOf(status.error_code()),
              silent ? fmt::format("vdpa-datapath on {} did not answer: {}; {}", socketPath_,
                                   status.error_message(), kRemedy)
                     : status.error_message());
}

datapath::v1::Attachment DatapathClient::attach(const datapath::v1::AttachRequest& request) {
  datapath::v1::AttachResponse response;
  call(&datapath::v1::Datapath::Stub::Attach, request, response, kAttachSeconds);
  return response.attachment();
}

bool DatapathClient::detach(const std::string& containerId, const std::string& interface) {
  datapath::v1::DetachRequest request;
  request.set_container_id(containerId);
  request.set_interface(interface);
  datapath::v1::DetachResponse response;
  call(&datapath::v1::Datapath::Stub::Detach, request, response, kCallSeconds);
  return response.detached();
}

std::vector<std::string> DatapathClient::check(const datapath::v1::CheckRequest& request) {
  datapath::v1::CheckResponse response;
  call(&datapath::v1::Datapath::Stub::Check, request, response, kCallSeconds);
  return {response.differences().begin(), response.differences().end()};
}

datapath::v1::ListResponse DatapathClient::list() {
  datapath::v1::ListResponse response;
  call(&datapath::v1::Datapath::Stub::List, datapath::v1::ListRequest(), response, kCallSeconds);
  return response;
}

}  // namespace vdpa::cni
