// The node's daemon as the CNI plugin sees it: four calls, their failures already CNI errors.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "datapath.grpc.pb.h"

namespace vdpa::cni {

class DatapathClient {
 public:
  // Doesn't connect yet; the first call does.
  explicit DatapathClient(std::string socketPath);

  datapath::v1::Attachment attach(const datapath::v1::AttachRequest& request);
  // False if there was nothing to detach.
  bool detach(const std::string& containerId, const std::string& interface);
  std::vector<std::string> check(const datapath::v1::CheckRequest& request);
  datapath::v1::ListResponse list();

 private:
  template <typename Method, typename Request, typename Response>
  void call(Method method, const Request& request, Response& response, int seconds);
  void requireSocket() const;

  std::string socketPath_;
  std::unique_ptr<datapath::v1::Datapath::Stub> stub_;
};

}  // namespace vdpa::cni
