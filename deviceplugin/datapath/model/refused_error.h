// A refused request: it is answered with a reason instead of a result. All other exceptions are
// failures of the system.
#pragma once

#include <stdexcept>
#include <string>

namespace vdpa::datapath {

enum class Refusal {
  invalidArgument,  // the device cannot do what is requested
  notFound,
  alreadyExists,
  inUse,    // pods use what it would take away
  aborted,  // the same request may succeed later
};

class RefusedError : public std::runtime_error {
 public:
  RefusedError(Refusal refusal, const std::string& message)
      : std::runtime_error(message), refusal_(refusal) {}
  Refusal refusal() const { return refusal_; }

 private:
  Refusal refusal_;
};

}  // namespace vdpa::datapath
