#include "cni/datapath_client.h"

#include <fmt/core.h>

#include <chrono>
#include <string>
#include <system_error>
#include <utility>

#include "cni/error.h"
#include "cni/grpc_call.h"

namespace vdpa::cni {
namespace {

using namespace std::chrono_literals;

// Attach waits a few seconds for transient conditions, SetAddresses for the processes that Attach
// started; the others answer at once.
constexpr auto kAttachTime = 30s;
constexpr auto kCallTime = 10s;

constexpr const char* kRemedy = "is the vdpa-datapath DaemonSet running on this node?";

Code codeOf(GrpcCode code) {
  switch (code) {
    case GrpcCode::invalidArgument:
      return Code::invalidConfig;
    case GrpcCode::alreadyExists:
      return Code::alreadyAttached;
    case GrpcCode::aborted:
    case GrpcCode::unavailable:
    case GrpcCode::deadlineExceeded:
      return Code::tryAgainLater;
    default:
      return Code::ioFailure;
  }
}

}  // namespace

DatapathClient::DatapathClient(std::string socketPath) : socketPath_(std::move(socketPath)) {}

template <typename Response, typename Request>
Response DatapathClient::call(const char* method, const Request& request,
                              std::chrono::seconds timeout, Code notFound) const {
  GrpcReply reply;
  try {
    reply = callGrpc(socketPath_, fmt::format("/vdpa.datapath.v1.Datapath/{}", method),
                     request.SerializeAsString(), timeout);
  } catch (const std::system_error& error) {
    throw Error(Code::tryAgainLater, fmt::format("{}; {}", error.what(), kRemedy));
  }
  const bool silent =
      reply.code == GrpcCode::deadlineExceeded || reply.code == GrpcCode::unavailable;
  if (silent)
    throw Error(Code::tryAgainLater, fmt::format("vdpa-datapath on {} did not answer: {}; {}",
                                                 socketPath_, reply.error, kRemedy));
  if (reply.code == GrpcCode::notFound) throw Error(notFound, reply.error);
  if (reply.code != GrpcCode::ok) throw Error(codeOf(reply.code), reply.error);
  Response response;
  if (!response.ParseFromString(reply.message))
    throw Error(Code::ioFailure,
                fmt::format("vdpa-datapath on {} sent a malformed answer to {}: is it of the same "
                            "version as this plugin?",
                            socketPath_, method));
  return response;
}

datapath::v1::AttachResponse DatapathClient::attach(const datapath::v1::AttachRequest& request) {
  return call<datapath::v1::AttachResponse>("Attach", request, kAttachTime);
}

datapath::v1::SetAddressesResponse DatapathClient::setAddresses(
    const datapath::v1::SetAddressesRequest& request) {
  return call<datapath::v1::SetAddressesResponse>("SetAddresses", request, kCallTime,
                                                  Code::unknownContainer);
}

bool DatapathClient::detach(const std::string& containerId, const std::string& interface) {
  datapath::v1::DetachRequest request;
  request.set_container_id(containerId);
  request.set_interface(interface);
  return call<datapath::v1::DetachResponse>("Detach", request, kCallTime).detached();
}

datapath::v1::CheckResponse DatapathClient::check(const datapath::v1::CheckRequest& request) {
  auto response =
      call<datapath::v1::CheckResponse>("Check", request, kCallTime, Code::unknownContainer);
  for (const auto& field : response.receiver().unknown_fields())
    response.add_differences(
        fmt::format("field {} is not in force: vdpa-datapath {} does not know it", field,
                    response.receiver().version()));
  return response;
}

datapath::v1::ListResponse DatapathClient::list(std::chrono::seconds timeout) {
  return call<datapath::v1::ListResponse>("List", datapath::v1::ListRequest(), timeout);
}

}  // namespace vdpa::cni
