// vdpactl's connection to vdpa-datapath, and what all sub-commands share.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "datapath.pb.h"
#include "plugin.pb.h"

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

  // Each throws std::runtime_error naming the socket and a remedy.
  datapath::v1::ListResponse list();
  datapath::v1::StatsResponse stats();
  datapath::v1::DetachResponse detach(const datapath::v1::DetachRequest& request);
  // Nothing while pods have devices; `holders` then names them.
  std::optional<datapath::v1::DrainResponse> drain(std::string& holders);

 private:
  void check(const grpc::Status& status) const;

  std::string socketPath_;
  struct Connection;  // gRPC's headers are for client.cc
  std::unique_ptr<Connection> connection_;
};

// What vdpa-device-plugin decided of every device. Throws std::runtime_error naming the socket and
// a remedy.
plugin::v1::ListResponse listVerdicts(const Options& options);

// Throws std::runtime_error if the socket is missing or this user may not use it: gRPC's own errors
// hide the reason.
void requireSocket(const std::string& path, const std::string& program);

// An owner for people: namespace/pod, or its container without Kubernetes.
std::string podOf(const datapath::v1::Owner& owner);

}  // namespace vdpa::ctl
