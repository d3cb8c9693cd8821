#include "deviceplugin/datapath/api/watchers.h"

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/api/messages.h"
#include "deviceplugin/datapath/model/device_state.h"

namespace vdpa::datapath {
namespace {

using States = std::map<std::string, DeviceState>;

// Between two looks at whether a stream on which nothing happens has ended.
constexpr auto kPollInterval = std::chrono::seconds(1);

datapath::v1::WatchResponse changes(const States& before, const States& now) {
  datapath::v1::WatchResponse message;
  for (const auto& [id, state] : now) {
    const auto known = before.find(id);
    if (known == before.end() || !(known->second == state))
      *message.add_devices() = toMessage(state);
  }
  for (const auto& [id, state] : before) {
    if (now.contains(id)) continue;
    DeviceState removed = state;
    removed.healthy = false;
    removed.reason = "not offered any more";
    removed.removed = true;
    *message.add_devices() = toMessage(removed);
  }
  return message;
}

}  // namespace

void Watchers::publish(const std::function<std::vector<DeviceState>()>& look) {
  std::lock_guard publishing(publishing_);
  States now;
  for (auto& state : look()) now.emplace(state.id, std::move(state));
  {
    std::lock_guard lock(mutex_);
    if (now == states_ && version_ > 0) return;
    states_ = std::move(now);
    ++version_;
  }
  changed_.notify_all();
}

grpc::Status Watchers::serve(const grpc::ServerContext& context,
                             grpc::ServerWriter<datapath::v1::WatchResponse>& stream) {
  States told, now;
  unsigned version = 0;
  for (bool first = true; !context.IsCancelled(); first = false) {
    {
      std::unique_lock lock(mutex_);
      if (!first)
        changed_.wait_for(lock, kPollInterval, [&] { return version_ != version || ending_; });
      if (ending_) return {grpc::StatusCode::UNAVAILABLE, "vdpa-datapath is stopping"};
      if (version_ == version && !first) continue;
      version = version_;
      now = states_;
    }
    // The first also when there is no device: it tells that we are here.
    if (!stream.Write(changes(told, now))) break;
    told.swap(now);
  }
  return grpc::Status::CANCELLED;
}

void Watchers::shutdown() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
}

}  // namespace vdpa::datapath
