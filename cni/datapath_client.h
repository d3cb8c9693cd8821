// The node's daemon as the CNI plugin sees it: five calls whose failures are CNI errors.
#pragma once

#include <chrono>
#include <string>

#include "cni/error.h"
#include "datapath.pb.h"

namespace vdpa::cni {

class DatapathClient {
 public:
  // Each call opens its own connection.
  explicit DatapathClient(std::string socketPath);

  datapath::v1::AttachResponse attach(const datapath::v1::AttachRequest& request);
  // Throws Error (unknownContainer) if a DEL came in between.
  datapath::v1::SetAddressesResponse setAddresses(const datapath::v1::SetAddressesRequest& request);
  // False if there was nothing to detach.
  bool detach(const std::string& containerId, const std::string& interface);
  // Throws Error (unknownContainer) if the container's interface has no attachment.
  datapath::v1::CheckResponse check(const datapath::v1::CheckRequest& request);
  datapath::v1::ListResponse list(std::chrono::seconds timeout = std::chrono::seconds(10));

 private:
  template <typename Response, typename Request>
  Response call(const char* method, const Request& request, std::chrono::seconds timeout,
                Code notFound = Code::invalidConfig) const;

  std::string socketPath_;
};

}  // namespace vdpa::cni
