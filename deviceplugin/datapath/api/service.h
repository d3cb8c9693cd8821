// vdpa.datapath.v1 over gRPC: requests in, exceptions to status codes, nothing else.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>

#include "datapath.grpc.pb.h"
#include "deviceplugin/datapath/api/watchers.h"
#include "deviceplugin/datapath/attachments/datapath.h"

namespace vdpa::datapath {

// Each call occupies one of gRPC's threads for as long as it waits or watches.
class Service : public datapath::v1::Datapath::Service {
 public:
  struct Hooks {
    std::function<void()> devicesChanged;
    std::function<void(double seconds, bool succeeded)> attachDone;
    std::function<void(double seconds, bool succeeded)> detachDone;
  };
  Service(Datapath& datapath, Watchers& watchers, Hooks hooks);

  grpc::Status SetDevices(grpc::ServerContext*, const datapath::v1::SetDevicesRequest* request,
                          datapath::v1::SetDevicesResponse*) override;
  grpc::Status Attach(grpc::ServerContext* context, const datapath::v1::AttachRequest* request,
                      datapath::v1::AttachResponse* response) override;
  grpc::Status Detach(grpc::ServerContext*, const datapath::v1::DetachRequest* request,
                      datapath::v1::DetachResponse* response) override;
  grpc::Status SetAddresses(grpc::ServerContext*, const datapath::v1::SetAddressesRequest* request,
                            datapath::v1::SetAddressesResponse* response) override;
  grpc::Status Drain(grpc::ServerContext*, const datapath::v1::DrainRequest*,
                     datapath::v1::DrainResponse* response) override;
  grpc::Status Check(grpc::ServerContext*, const datapath::v1::CheckRequest* request,
                     datapath::v1::CheckResponse* response) override;
  grpc::Status List(grpc::ServerContext*, const datapath::v1::ListRequest*,
                    datapath::v1::ListResponse* response) override;
  grpc::Status Stats(grpc::ServerContext*, const datapath::v1::StatsRequest* request,
                     datapath::v1::StatsResponse* response) override;
  grpc::Status Watch(grpc::ServerContext* context, const datapath::v1::WatchRequest*,
                     grpc::ServerWriter<datapath::v1::WatchResponse>* stream) override;

 private:
  Datapath& datapath_;
  Watchers& watchers_;
  const Hooks hooks_;
};

}  // namespace vdpa::datapath
