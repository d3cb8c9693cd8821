#include "deviceplugin/datapath/api/api_server.h"

#include <sys/stat.h>

#include <chrono>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "common/errors.h"
#include "common/log.h"

namespace vdpa::datapath {
namespace {

constexpr auto kShutdownTime = std::chrono::seconds(2);
// Each call that waits takes one; a node has at most a few hundred pods.
constexpr int kMaxThreads = 512;

}  // namespace

ApiServer::ApiServer(const std::string& socket, std::initializer_list<grpc::Service*> services) {
  grpc::ResourceQuota quota;
  quota.SetMaxThreads(kMaxThreads);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  // The plugin pings at most this often, on a stream that may be idle for hours.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  for (auto* service : services) builder.RegisterService(service);
  server_ = builder.BuildAndStart();
  if (!server_) throw std::runtime_error("cannot listen on " + socket);
  // The directory is accessible to root only: no one else could connect before this.
  checked(::chmod(socket.c_str(), 0600), "cannot set the mode of {}", socket);
  log::info("serving on {}", socket);
}

void ApiServer::shutdown() {
  server_->Shutdown(std::chrono::system_clock::now() + kShutdownTime);
  server_->Wait();
}

}  // namespace vdpa::datapath
