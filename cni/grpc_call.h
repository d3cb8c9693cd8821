// One unary gRPC call, for a process that lives for milliseconds: HTTP/2 through libnghttp2 without
// the threads of a gRPC runtime, whose start-up would take longer than the call.
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
  std::string error;    // the server's message if code is not ok
  std::string message;  // the serialized response if it is
};

// Calls `method` ("/package.Service/Method") on the server that listens on the unix socket. Blocks
// for at most `timeout`, or 2 s if the socket accepts connections but no process serves it. Returns
// as replies: the server's errors, an expired deadline (deadlineExceeded), and a connection that
// breaks or speaks another protocol (unavailable). Throws std::system_error if it can't connect.
GrpcReply callGrpc(const std::string& socketPath, const std::string& method,
                   const std::string& request, std::chrono::milliseconds timeout);

}  // namespace vdpa::cni
