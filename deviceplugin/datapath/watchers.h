// Who watches the devices' states. A watcher gets the changes since its last message as one
// message: a slow one costs no more than the set of devices, and no thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "datapath.grpc.pb.h"
#include "deviceplugin/datapath/device_state.h"

namespace vdpa {

class Watchers {
 public:
  using Stream = grpc::ServerWriteReactor<datapath::v1::WatchResponse>;

  // The whole set; what differs from the one before goes to the watchers.
  void publish(const std::vector<DeviceState>& states);
  // A stream that starts with every device. It deletes itself when it ends.
  Stream* add();
  // Ends all streams, and those that are still to come.
  void shutdown();

 private:
  class Watcher;

  void remove(Watcher* watcher);

  std::mutex mutex_;
  std::map<std::string, DeviceState> states_;
  std::set<Watcher*> watchers_;
  bool ending_ = false;
};

}  // namespace vdpa
