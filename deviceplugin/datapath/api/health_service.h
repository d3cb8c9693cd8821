// gRPC's standard health service: a datapath that answers is SERVING.
//
// gRPC's own (EnableDefaultHealthCheckService) and its callback API are not used in this program:
// their threads sleep for a tenth of a second once in a second (gRPC 1.51, CallbackAlternativeCQ),
// and a call that arrives while one of them is due to poll the sockets waits for it.
#pragma once

#include <grpcpp/grpcpp.h>

#include "health.grpc.pb.h"

namespace vdpa::datapath {

class HealthService : public grpc::health::v1::Health::Service {
 public:
  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override {
    if (!request->service().empty())
      return {grpc::StatusCode::NOT_FOUND, "unknown service " + request->service()};
    response->set_status(grpc::health::v1::HealthCheckResponse::SERVING);
    return grpc::Status::OK;
  }
};

}  // namespace vdpa::datapath
