// Reads the node's daemons by their sockets of vdpa.observe.v1.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "common/event_loop.h"
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
  Daemons(EventLoop& loop, std::string directory);

  // Asks both at once, and calls `done` on the loop's thread when both have answered, or after
  // about two seconds. On the loop's thread. If the loop ends before, `done` is not called.
  void read(std::function<void(Node)> done);

 private:
  void ask(const std::string& daemon,
           std::function<void(std::optional<observe::v1::Observation>)> done);
  void report(const std::string& socket, const std::string& problem);

  EventLoop& loop_;
  const std::string directory_;
  std::map<std::string, std::string> problems_;  // by socket, as last logged
};

}  // namespace vdpa::exporter
