#include "deviceplugin/datapath/api/watchers.h"

#include <chrono>
#include <map>
#include <string>
#include <utility>

#include "common/mutex.h"
#include "deviceplugin/datapath/api/messages.h"
#include "deviceplugin/datapath/model/device_state.h"

namespace vdpa::datapath {
namespace {

using States = std::map<std::string, DeviceState>;

// Between two checks whether an idle stream has ended.
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
    removed.reason = "no longer offered";
    removed.removed = true;
    *message.add_devices() = toMessage(removed);
  }
  return message;
}

}  // namespace

void Watchers::publish() {
  Lock publishing(publishing_);
  States now;
  for (auto& state : look_()) now.emplace(state.id, std::move(state));
  {
    Lock lock(mutex_);
    if (now == states_ && version_ > 0) return;
    states_ = std::move(now);
    ++version_;
  }
  changed_.notifyAll();
}

grpc::Status Watchers::serve(const grpc::ServerContext& context,
                             grpc::ServerWriter<datapath::v1::WatchResponse>& stream) {
  States sent, now;
  unsigned version = 0;
  for (bool first = true; !context.IsCancelled(); first = false) {
    {
      Lock lock(mutex_);
      const auto deadline = Condition::Clock::now() + kPollInterval;
      while (!first && version_ == version && !ending_)
        if (!changed_.waitUntil(mutex_, deadline)) break;
      if (ending_) return {grpc::StatusCode::UNAVAILABLE, "vdpa-datapath is stopping"};
      if (version_ == version && !first) continue;
      version = version_;
      now = states_;
    }
    // The first message is sent even without devices: it shows that we are up.
    if (!stream.Write(changes(sent, now))) break;
    sent.swap(now);
  }
  return grpc::Status::CANCELLED;
}

void Watchers::shutdown() {
  {
    Lock lock(mutex_);
    ending_ = true;
  }
  changed_.notifyAll();
}

}  // namespace vdpa::datapath
