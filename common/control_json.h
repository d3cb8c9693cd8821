// The control channel's messages as lines of JSON, as release 0.1.0 has them and all releases
// understand them. New fields need a name there only if an adopted process of 0.1.0 is to get them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>

#include "control.pb.h"

namespace vdpa {

// A line that is no request; `id` is the request's, if that much could be read.
class BadRequest : public std::runtime_error {
 public:
  BadRequest(const std::string& reason, std::optional<int64_t> requestId)
      : std::runtime_error(reason), id(requestId) {}
  const std::optional<int64_t> id;
};

// The operation's name in JSON, for messages too: "add_port". Empty if none is set.
std::string operationName(control::Request::OperationCase operation);

std::string requestToJson(const control::Request& request);
// Throws BadRequest.
control::Request requestFromJson(const std::string& line);

// A string that is no UTF-8 has U+FFFD in place of what is wrong with it.
std::string fromProcessToJson(const control::FromProcess& message);
// An answer doesn't say what was asked: `operationOf` knows by its id. Absent if the line is no
// message, or the answer to no request that `operationOf` knows. Throws std::exception if a field
// has another type than the schema's.
std::optional<control::FromProcess> fromProcessFromJson(
    const std::string& line,
    const std::function<control::Request::OperationCase(int64_t id)>& operationOf);

}  // namespace vdpa
