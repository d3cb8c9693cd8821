#include "deviceplugin/kubelet/list_stream.h"

#include <cstdint>
#include <functional>
#include <utility>

#include "common/mutex.h"
#include "deviceplugin/kubelet/device_list.h"

namespace vdpa::plugin {

ListStream::ListStream(DeviceList& devices, std::function<void()> onDone)
    : devices_(devices), onDone_(std::move(onDone)) {
  devices_.subscribe(this, [this](const DeviceList::Message& message, uint64_t version) {
    offer(message, version);
  });
  const auto [message, version] = devices_.current();
  offer(message, version);
}

void ListStream::offer(const DeviceList::Message& message, uint64_t version) {
  Lock lock(mutex_);
  if (version <= version_) return;
  version_ = version;
  newest_ = message;
  if (!writing_) writeNext();
}

void ListStream::writeNext() {
  if (finished_ || !newest_) return;
  writing_ = std::move(newest_);
  newest_ = nullptr;
  StartWrite(writing_.get());
}

void ListStream::finish() {
  if (finished_) return;
  finished_ = true;
  Finish(grpc::Status::OK);
}

void ListStream::OnWriteDone(bool ok) {
  Lock lock(mutex_);
  writing_ = nullptr;
  if (ok)
    writeNext();
  else
    finish();
}

void ListStream::OnCancel() {
  Lock lock(mutex_);
  finish();
}

void ListStream::OnDone() {
  devices_.unsubscribe(this);
  onDone_();
  delete this;
}

}  // namespace vdpa::plugin
