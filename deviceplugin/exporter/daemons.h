// Reads the node's daemons by their sockets of vdpa.observe.v1.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/event_loop.h"
#include "observe.grpc.pb.h"
#include "observe.pb.h"

namespace vdpa::exporter {

// What the daemons answered; absent: nothing in time.
struct Node {
  std::optional<observe::v1::Observation> plugin;
  std::optional<observe::v1::Observation> datapath;
};

class Daemons {
 public:
  // `directory` has the sockets.
  Daemons(EventLoop& loop, const std::string& directory);

  // Asks both at once, and calls `done` on the loop's thread when both have answered, or after
  // about two seconds. On the loop's thread. If the loop ends before, `done` is not called.
  void read(std::function<void(Node)> done);

 private:
  struct Daemon {
    explicit Daemon(std::string socket);

    const std::string socket;
    // Its connection is kept: gRPC 1.51 aborts now and then when a process's last channel ends in a
    // callback.
    const std::unique_ptr<observe::v1::Observe::Stub> stub;
    std::string problem;  // as last logged
  };
  void ask(Daemon& daemon, std::function<void(std::optional<observe::v1::Observation>)> done);

  EventLoop& loop_;
  Daemon plugin_, datapath_;
};

}  // namespace vdpa::exporter
