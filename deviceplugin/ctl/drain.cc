// vdpactl drain
#include <fmt/core.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/json.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"

namespace vdpa::ctl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPollInterval = std::chrono::seconds(1);

datapath::v1::DrainResponse drained(DatapathClient& client,
                                    std::optional<std::chrono::seconds> wait) {
  const auto end = wait && wait->count() > 0 ? Clock::now() + *wait : Clock::time_point::max();
  for (std::string reported, holders;;) {
    if (auto response = client.drain(holders)) return std::move(*response);
    if (!wait) throw std::runtime_error(holders);
    if (Clock::now() >= end)
      throw std::runtime_error(fmt::format("after {} s {}", wait->count(), holders));
    if (holders != reported) fmt::print(stderr, "vdpactl: waiting: {}\n", holders);
    reported = holders;
    std::this_thread::sleep_for(kPollInterval);
  }
}

}  // namespace

void drain(const Options& options, std::optional<std::chrono::seconds> wait) {
  DatapathClient client(options.datapathSocket);
  const auto response = drained(client, wait);
  if (options.output == Output::json) {
    const nlohmann::json json{
        {"ended", std::vector<std::string>(response.ended().begin(), response.ended().end())},
        {"left", std::vector<std::string>(response.left().begin(), response.left().end())}};
    fmt::print("{}\n", jsonText(json, 2));
    return;
  }
  for (const auto& what : response.ended()) fmt::print("ended {}\n", what);
  for (const auto& what : response.left()) fmt::print("left behind: {}\n", what);
  fmt::print("drained: this node offers no device until vdpa-datapath is restarted\n");
}

}  // namespace vdpa::ctl
