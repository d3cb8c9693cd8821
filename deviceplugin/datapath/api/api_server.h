// Serves the datapath's API.
#pragma once

#include <grpcpp/grpcpp.h>

#include <initializer_list>
#include <memory>
#include <string>

namespace vdpa::datapath {

// Serves on a Unix socket that only root can open, in a directory that only root can access, so
// callers are not authenticated. The services outlive this.
class ApiServer {
 public:
  // Throws an exception that names the socket.
  ApiServer(const std::string& socket, std::initializer_list<grpc::Service*> services);

  // Gives calls a moment to end. None is running afterwards.
  void shutdown();

 private:
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace vdpa::datapath
