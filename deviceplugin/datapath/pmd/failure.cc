#include "deviceplugin/datapath/pmd/failure.h"

#include <poll.h>

#include <chrono>
#include <exception>
#include <iterator>
#include <string>

#include "common/control_channel.h"
#include "common/control_stream.h"
#include "common/json.h"
#include "common/log.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/pmd/hello.h"
#include "deviceplugin/datapath/pmd/options.h"

namespace vdpa::pmd {
namespace {

constexpr std::chrono::seconds kTime{3};  // vdpa-datapath asks within milliseconds

void serve(const PmdOptions& options, const std::string& reason) {
  using Clock = std::chrono::steady_clock;
  const UniqueFd signals = takeStopSignals();
  bool stop = false;
  ControlServer control(
      options.control,
      [&](const control::Request& request, Descriptors&) {
        control::Answer answer;
        if (request.has_stop()) {
          stop = true;
          return answer;
        }
        *answer.mutable_hello() = helloOf(options);
        auto& status = *answer.mutable_hello()->mutable_pmd()->mutable_status();
        status.set_reason(validText(reason));  // it may quote the driver
        return answer;
      },
      options.controlFd);
  const auto end = Clock::now() + kTime;
  while (!stop && Clock::now() < end) {
    pollfd fds[] = {{signals.get(), POLLIN, 0}, {control.fd(), POLLIN, 0}};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
    ::poll(fds, std::size(fds), static_cast<int>(left.count()));
    if (fds[0].revents) return;
    if (fds[1].revents) control.process();
  }
}

}  // namespace

void tellFailure(const PmdOptions& options, const std::string& reason) {
  try {
    serve(options, reason);
  } catch (const std::exception& error) {
    log::warn("cannot report the failure to vdpa-datapath: {}", error.what());
  }
}

}  // namespace vdpa::pmd
