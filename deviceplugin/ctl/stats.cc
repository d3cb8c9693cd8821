// vdpactl stats
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/json.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/table.h"

namespace vdpa::ctl {
namespace {

using datapath::v1::DeviceStats;
using Clock = std::chrono::steady_clock;

struct Sample {
  Clock::time_point taken;
  std::map<std::string, DeviceStats> devices;
};

Sample take(DatapathClient& client) {
  Sample sample;
  const auto response = client.stats();
  sample.taken = Clock::now();
  for (const auto& device : response.devices()) sample.devices[device.id()] = device;
  return sample;
}

std::string dropsOf(const DeviceStats& device) {
  const std::map<std::string, uint64_t> sorted(device.drops().begin(), device.drops().end());
  std::string text;
  for (const auto& [reason, count] : sorted)
    if (count > 0) text += fmt::format("{}{}={}", text.empty() ? "" : " ", reason, count);
  return text;
}

std::string perSecond(uint64_t now, uint64_t before, double seconds) {
  return fmt::format("{:.0f}", static_cast<double>(now - std::min(now, before)) / seconds);
}

std::string tableOf(const Sample& now, const Sample* before) {
  std::vector<std::string> header{"DEVICE", "RX-PACKETS", "RX-BYTES", "TX-PACKETS", "TX-BYTES"};
  if (before) header.insert(header.end(), {"RX-PPS", "TX-PPS"});
  header.push_back("DROPS");
  Table table(header);
  for (const auto& [id, device] : now.devices) {
    std::vector<std::string> row{
        id, std::to_string(device.rx_packets()), std::to_string(device.rx_bytes()),
        std::to_string(device.tx_packets()), std::to_string(device.tx_bytes())};
    if (before) {
      const auto old = before->devices.find(id);
      const double seconds = std::chrono::duration<double>(now.taken - before->taken).count();
      const bool known = old != before->devices.end();
      row.push_back(known ? perSecond(device.rx_packets(), old->second.rx_packets(), seconds) : "");
      row.push_back(known ? perSecond(device.tx_packets(), old->second.tx_packets(), seconds) : "");
    }
    row.push_back(dropsOf(device));
    table.add(row);
  }
  return now.devices.empty() ? "no attached devices\n" : table.text();
}

nlohmann::json jsonOf(const Sample& sample) {
  auto array = nlohmann::json::array();
  for (const auto& [id, device] : sample.devices)
    array.push_back(
        {{"device", id},
         {"rx_packets", device.rx_packets()},
         {"rx_bytes", device.rx_bytes()},
         {"tx_packets", device.tx_packets()},
         {"tx_bytes", device.tx_bytes()},
         {"drops", std::map<std::string, uint64_t>(device.drops().begin(), device.drops().end())}});
  return array;
}

void print(const Options& options, const Sample& now, const Sample* before) {
  if (options.output == Output::json)
    fmt::print("{}\n", jsonText(jsonOf(now), before ? -1 : 2));
  else
    fmt::print("{}", tableOf(now, before));
  std::fflush(stdout);
}

}  // namespace

void printStats(const Options& options, std::chrono::milliseconds interval) {
  DatapathClient client(options.datapathSocket);
  Sample before = take(client);
  if (interval.count() == 0) return print(options, before, nullptr);

  const bool clear = options.output == Output::table && ::isatty(STDOUT_FILENO);
  for (;;) {  // until SIGINT: there is nothing to clean up
    std::this_thread::sleep_for(interval);
    Sample now = take(client);
    if (clear) fmt::print("\033[H\033[2J");
    print(options, now, &before);
    before = std::move(now);
  }
}

}  // namespace vdpa::ctl
