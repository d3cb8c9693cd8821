// One ListAndWatch stream. It sends the newest list, never a queue of lists, so a slow reader costs
// one message. It deletes itself when the kubelet is gone.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>

#include "common/mutex.h"
#include "deviceplugin.pb.h"
#include "deviceplugin/kubelet/device_list.h"

namespace vdpa::plugin {

class ListStream : public grpc::ServerWriteReactor<v1beta1::ListAndWatchResponse> {
 public:
  // `onDone` runs once, on a gRPC thread, when the stream has ended. `devices` must outlive the
  // server that has the stream.
  ListStream(DeviceList& devices, std::function<void()> onDone);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // Lock order: the list's mutex, then this one.
  void offer(const DeviceList::Message& message, uint64_t version);
  void writeNext() REQUIRES(mutex_);
  void finish() REQUIRES(mutex_);

  DeviceList& devices_;
  std::function<void()> onDone_;
  Mutex mutex_;
  DeviceList::Message newest_ GUARDED_BY(mutex_);
  DeviceList::Message writing_ GUARDED_BY(mutex_);  // kept until gRPC has written it
  uint64_t version_ GUARDED_BY(mutex_) = 0;
  bool finished_ GUARDED_BY(mutex_) = false;
};

}  // namespace vdpa::plugin
