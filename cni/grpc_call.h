// One unary gRPC call, made by a process that lives for milliseconds: HTTP/2 by libnghttp2, without
// the threads and the start-up of a gRPC runtime, which would take longer than the call.
#pragma once

#include <chrono>
#include <string>

namespace vdpa::cni {

// Status codes of gRPC (https://grpc.github.io/grpc/core/md_doc_statuscodes.html).
enum class GrpcCode {
  ok = 0,
  unknown = 2,
  invalidArgument = 3,
  deadlineExceeded = 4,
  notFound = 5,
  alreadyExists = 6,
  aborted = 10,
  internal = 13,
  unavailable = 14,
};

struct GrpcReply {
  GrpcCode code = GrpcCode::ok;
  std::string error;    // the server's words when code is not ok
  std::string message;  // serialized response when it is
};

// Calls `method` ("/package.Service/Method") on the server that listens on the unix socket; blocks
// no longer than `timeout`, and than 2 s where nobody serves the socket although it can be
// connected to. What the server says, an expired deadline (deadlineExceeded) and a connection that
// breaks or speaks something else (unavailable) are replies; a socket that cannot be connected to
// is a std::system_error.
GrpcReply callGrpc(const std::string& socketPath, const std::string& method,
                   const std::string& request, std::chrono::milliseconds timeout);

}  // namespace vdpa::cni
