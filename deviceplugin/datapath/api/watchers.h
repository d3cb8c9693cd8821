// Who watches the devices' states. A watcher gets the changes since its last message as one
// message: a slow one costs no more than its thread and a copy of the set of devices.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "datapath.grpc.pb.h"
#include "deviceplugin/datapath/model/device_state.h"

namespace vdpa::datapath {

class Watchers {
 public:
  // The whole set, as `look` returns it; its differences from the set before go to the watchers.
  // One call runs at a time, look included, so that an older set never replaces a newer one.
  void publish(const std::function<std::vector<DeviceState>()>& look);
  // Writes every device, then what changes; returns when the stream has ended, within a second.
  grpc::Status serve(const grpc::ServerContext& context,
                     grpc::ServerWriter<datapath::v1::WatchResponse>& stream);
  // Ends all streams, and those that are still to come.
  void shutdown();

 private:
  std::mutex publishing_;  // taken before any other
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, DeviceState> states_;
  unsigned version_ = 0;  // of states_
  bool ending_ = false;
};

}  // namespace vdpa::datapath
