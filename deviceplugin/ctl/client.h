// vdpactl's connection to vdpa-datapath, and what every sub-command shares.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "datapath.pb.h"

namespace grpc {
class Status;
}

namespace vdpa::ctl {

enum class Output { table, json };

struct Options {
  std::string datapathSocket = "/run/vdpa/datapath.sock";
  std::string pluginSocket = "/run/vdpa/plugin.sock";
  std::string podResources = "/var/lib/kubelet/pod-resources/kubelet.sock";
  Output output = Output::table;
};

class DatapathClient {
 public:
  explicit DatapathClient(const std::string& socketPath);
  ~DatapathClient();

  // Each throws std::runtime_error that names the socket and what to look at.
  datapath::v1::ListResponse list();
  datapath::v1::StatsResponse stats();
  datapath::v1::DetachResponse detach(const datapath::v1::DetachRequest& request);
  // Empty while pods have devices; `holders` then says which.
  std::optional<datapath::v1::DrainResponse> drain(std::string& holders);

 private:
  void check(const grpc::Status& status) const;

  std::string socketPath_;
  struct Connection;  // gRPC's headers are for client.cc
  std::unique_ptr<Connection> connection_;
};

// A socket that isn't there, or that this user may not use, is said in plain words before gRPC
// wraps it in its own.
void requireSocket(const std::string& path, const std::string& program);

// What people call an owner: namespace/pod, or its container where there is no Kubernetes.
std::string podOf(const datapath::v1::Owner& owner);

}  // namespace vdpa::ctl
