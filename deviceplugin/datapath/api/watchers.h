// The watchers of the devices' states. A watcher gets the changes since its last message as one
// message: a slow one costs no more than its thread and a copy of the set of devices.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "datapath.grpc.pb.h"
#include "deviceplugin/datapath/model/device_state.h"

namespace vdpa::datapath {

class Watchers {
 public:
  // `look` returns the states of all devices.
  explicit Watchers(std::function<std::vector<DeviceState>()> look) : look_(std::move(look)) {}

  // Looks, and sends the watchers the differences from the previous states. One call runs at a
  // time, look included: an older set never replaces a newer one. Throws what `look` throws.
  void publish();
  // Writes every device, then changes; returns when the stream has ended, within a second.
  grpc::Status serve(const grpc::ServerContext& context,
                     grpc::ServerWriter<datapath::v1::WatchResponse>& stream);
  // Ends all streams, current and future.
  void shutdown();

 private:
  const std::function<std::vector<DeviceState>()> look_;
  Mutex publishing_;  // one publish() at a time; taken before any other mutex
  Mutex mutex_;
  Condition changed_;
  std::map<std::string, DeviceState> states_ GUARDED_BY(mutex_);
  unsigned version_ GUARDED_BY(mutex_) = 0;  // of states_
  bool ending_ GUARDED_BY(mutex_) = false;
};

}  // namespace vdpa::datapath
