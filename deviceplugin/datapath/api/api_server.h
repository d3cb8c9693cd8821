// Where the datapath's API can be reached, and by whom.
#pragma once

#include <grpcpp/grpcpp.h>

#include <initializer_list>
#include <memory>
#include <string>

namespace vdpa::datapath {

// Serves on a Unix socket that root alone can open, in a directory that is root's alone: nobody
// else is asked who they are. The services outlive this.
class ApiServer {
 public:
  // Throws what names the socket.
  ApiServer(const std::string& socket, std::initializer_list<grpc::Service*> services);

  // Calls have a moment to end. Afterwards none is running.
  void shutdown();

 private:
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace vdpa::datapath
