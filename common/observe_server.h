// Shows a daemon to vdpa-exporter: serves vdpa.observe.v1 on a socket of its own, in a directory of
// its own.
//
// The exporter is not root, and has that directory alone: so the directory and the socket are open
// to every user, while the run directory above them is root's, and pods get neither. A client can
// read, and nothing else. It has its own server with a few threads, so that nothing that a client
// does is felt by the daemon's other calls.
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace grpc {
class Server;
}

namespace vdpa {

namespace observe::v1 {
class Observation;
}

class ObserveServer {
 public:
  // Fills in all but the version. Called by one thread at a time, of this object's. May throw.
  using Read = std::function<void(observe::v1::Observation& observation)>;

  // Serves on `directory`/vdpa-`name`.sock, and makes the directory. Not on datapath.sock: the CNI
  // plugin takes any of that name for the datapath's. If it can't, the log has the error: metrics
  // are no reason for a daemon not to serve pods.
  ObserveServer(const std::string& directory, const std::string& name, Read read);
  ~ObserveServer();  // no call of `read` is running afterwards

 private:
  class Service;

  void listen(const std::string& socket);

  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace vdpa
