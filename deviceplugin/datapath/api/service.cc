#include "deviceplugin/datapath/api/service.h"

#include <chrono>
#include <exception>
#include <utility>

#include "common/errors.h"
#include "common/known_fields.h"
#include "common/log.h"
#include "deviceplugin/datapath/api/messages.h"
#include "deviceplugin/datapath/api/watchers.h"
#include "deviceplugin/datapath/attachments/datapath.h"
#include "deviceplugin/datapath/model/owner.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

grpc::StatusCode codeOf(Refusal refusal) {
  switch (refusal) {
    case Refusal::invalidArgument:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case Refusal::notFound:
      return grpc::StatusCode::NOT_FOUND;
    case Refusal::alreadyExists:
      return grpc::StatusCode::ALREADY_EXISTS;
    case Refusal::inUse:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case Refusal::aborted:
      return grpc::StatusCode::ABORTED;
  }
  return grpc::StatusCode::UNKNOWN;
}

template <typename Function>
grpc::Status answer(const char* call, Function function) {
  try {
    function();
    return grpc::Status::OK;
  } catch (const RefusedError& error) {
    log::warn("{} refused: {}", call, error.what());
    return {codeOf(error.refusal()), error.what()};
  } catch (const std::exception& error) {
    const std::string message = withRemedy(error);
    log::error("{} failed: {}", call, message);
    return {grpc::StatusCode::INTERNAL, message};
  }
}

}  // namespace

Service::Service(Datapath& datapath, Watchers& watchers, Hooks hooks)
    : datapath_(datapath), watchers_(watchers), hooks_(std::move(hooks)) {}

grpc::Status Service::SetDevices(grpc::ServerContext*,
                                 const datapath::v1::SetDevicesRequest* request,
                                 datapath::v1::SetDevicesResponse* response) {
  *response->mutable_receiver() = receiverOf(*request);
  return answer("SetDevices", [&] {
    datapath_.offers.setDevices(fromMessage(*request));
    hooks_.devicesChanged();
  });
}

grpc::Status Service::Attach(grpc::ServerContext* context,
                             const datapath::v1::AttachRequest* request,
                             datapath::v1::AttachResponse* response) {
  const auto begin = std::chrono::steady_clock::now();
  *response->mutable_receiver() = receiverOf(*request);
  auto status = answer("Attach", [&] {
    *response->mutable_attachment() = toMessage(datapath_.attachments.attach(
        fromMessage(*request), [context] { return context->IsCancelled(); }));
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  hooks_.attachDone(took.count(), status.ok());
  return status;
}

grpc::Status Service::Detach(grpc::ServerContext*, const datapath::v1::DetachRequest* request,
                             datapath::v1::DetachResponse* response) {
  return answer("Detach", [&] {
    const AttachmentKey key(request->container_id(), request->interface());
    response->set_detached(
        request->device_id().empty()
            ? datapath_.attachments.detach(key)
            : datapath_.attachments.release(request->device_id(), key, request->force()));
  });
}

grpc::Status Service::SetAddresses(grpc::ServerContext*,
                                   const datapath::v1::SetAddressesRequest* request,
                                   datapath::v1::SetAddressesResponse* response) {
  *response->mutable_receiver() = receiverOf(*request);
  return answer("SetAddresses", [&] {
    *response->mutable_attachment() = toMessage(datapath_.attachments.setAddresses(
        {request->container_id(), request->interface()}, fromMessage(*request)));
  });
}

grpc::Status Service::Drain(grpc::ServerContext*, const datapath::v1::DrainRequest*,
                            datapath::v1::DrainResponse* response) {
  return answer("Drain", [&] {
    const auto drained = datapath_.drain.run();
    response->mutable_ended()->Assign(drained.ended.begin(), drained.ended.end());
    response->mutable_left()->Assign(drained.left.begin(), drained.left.end());
    hooks_.devicesChanged();
  });
}

grpc::Status Service::Check(grpc::ServerContext*, const datapath::v1::CheckRequest* request,
                            datapath::v1::CheckResponse* response) {
  *response->mutable_receiver() = receiverOf(*request);
  return answer("Check", [&] {
    const auto checked = datapath_.status.check(fromMessage(*request));
    *response->mutable_attachment() = toMessage(checked.attachment);
    response->mutable_differences()->Assign(checked.differences.begin(), checked.differences.end());
  });
}

grpc::Status Service::List(grpc::ServerContext*, const datapath::v1::ListRequest*,
                           datapath::v1::ListResponse* response) {
  return answer("List", [&] {
    for (const auto& state : datapath_.status.deviceStates())
      *response->add_devices() = toMessage(state);
    for (const auto& live : datapath_.status.list()) *response->add_attachments() = toMessage(live);
    response->set_not_ready(datapath_.status.notReady());
  });
}

grpc::Status Service::Stats(grpc::ServerContext*, const datapath::v1::StatsRequest* request,
                            datapath::v1::StatsResponse* response) {
  return answer("Stats", [&] {
    const auto& ids = request->device_ids();
    for (const auto& counters : datapath_.status.counters({ids.begin(), ids.end()}))
      *response->add_devices() = toMessage(counters);
  });
}

grpc::Status Service::Watch(grpc::ServerContext* context, const datapath::v1::WatchRequest*,
                            grpc::ServerWriter<datapath::v1::WatchResponse>* stream) {
  // A stream begins with what List says now, not with what the last check found.
  if (auto status = answer("Watch", [this] { watchers_.publish(); }); !status.ok()) return status;
  return watchers_.serve(*context, *stream);
}

}  // namespace vdpa::datapath
