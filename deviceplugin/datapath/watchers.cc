// See the header.
#include "deviceplugin/datapath/watchers.h"

#include "deviceplugin/datapath/messages.h"

namespace vdpa {

// Its members are guarded by the Watchers' mutex.
class Watchers::Watcher : public Stream {
 public:
  explicit Watcher(Watchers& watchers) : watchers_(watchers) {}

  void change(const DeviceState& state) { pending_[state.id] = state; }

  // Sends what is pending, unless a message is on its way. `first`: even when there is nothing.
  void flush(bool first = false) {
    if (writing_ || finished_ || (pending_.empty() && !first)) return;
    message_.Clear();
    for (const auto& [id, state] : pending_) *message_.add_devices() = toMessage(state);
    pending_.clear();
    writing_ = true;
    StartWrite(&message_);
  }

  void finish(const grpc::Status& status) {
    if (finished_) return;
    finished_ = true;
    Finish(status);
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(watchers_.mutex_);
    writing_ = false;
    if (ok)
      flush();
    else
      finish(grpc::Status::CANCELLED);
  }

  void OnCancel() override {
    std::lock_guard lock(watchers_.mutex_);
    finish(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    watchers_.remove(this);
    delete this;
  }

 private:
  Watchers& watchers_;
  std::map<std::string, DeviceState> pending_;
  datapath::v1::WatchResponse message_;
  bool writing_ = false;
  bool finished_ = false;
};

void Watchers::publish(const std::vector<DeviceState>& states) {
  std::lock_guard lock(mutex_);
  std::map<std::string, DeviceState> now;
  for (const auto& state : states) now.emplace(state.id, state);
  for (const auto& [id, state] : now) {
    const auto before = states_.find(id);
    if (before != states_.end() && before->second == state) continue;
    for (auto* watcher : watchers_) watcher->change(state);
  }
  for (const auto& [id, state] : states_) {
    if (now.contains(id)) continue;
    DeviceState removed = state;
    removed.healthy = false;
    removed.reason = "not offered any more";
    removed.removed = true;
    for (auto* watcher : watchers_) watcher->change(removed);
  }
  states_ = std::move(now);
  for (auto* watcher : watchers_) watcher->flush();
}

Watchers::Stream* Watchers::add() {
  auto* watcher = new Watcher(*this);
  std::lock_guard lock(mutex_);
  if (ending_) {
    watcher->finish({grpc::StatusCode::UNAVAILABLE, "vdpa-datapath is stopping"});
    return watcher;
  }
  watchers_.insert(watcher);
  for (const auto& [id, state] : states_) watcher->change(state);
  watcher->flush(true);
  return watcher;
}

void Watchers::shutdown() {
  std::lock_guard lock(mutex_);
  ending_ = true;
  for (auto* watcher : watchers_)
    watcher->finish({grpc::StatusCode::UNAVAILABLE, "vdpa-datapath is stopping"});
}

void Watchers::remove(Watcher* watcher) {
  std::lock_guard lock(mutex_);
  watchers_.erase(watcher);
}

}  // namespace vdpa
