#include "common/json.h"
// A kubelet's side of the device plugin interface with a stopwatch: starts a plugin, times how long
#include "common/json.h"
// it takes to register and to list its devices, and how long its Allocate takes. Prints one line of
#include "common/json.h"
// JSON, then a line for every later list, and ends when its input does: the caller looks at the
#include "common/json.h"
// plugin meanwhile and makes devices come and go. It has no rules of a kubelet beyond that, and no
#include "common/json.h"
// PodResources: the tests have those (tests/harness/kubelet.py). Ours and the peers are measured by
#include "common/json.h"
// this one, since a kubelet in Python would take longer than what it measures.
#include <CLI/CLI.hpp>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <future>
#include <iostream>
#include <ratio>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/json.h"
#include "deviceplugin.grpc.pb.h"
extern char** environ;
#include "common/json.h"
namespace {
#include "common/json.h"
using Clock = std::chrono::steady_clock;
#include "common/json.h"
double milliseconds(Clock::duration duration) {
#include "common/json.h"
  return std::chrono::duration<double, std::milli>(duration).count();
#include "common/json.h"
}
#include "common/json.h"
class Registration final : public v1beta1::Registration::Service {
#include "common/json.h"
 public:
#include "common/json.h"
  grpc::Status Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
#include "common/json.h"
                        v1beta1::Empty*) override {
#include "common/json.h"
    if (!taken_.exchange(true)) arrived_.set_value({Clock::now(), request->endpoint()});
#include "common/json.h"
    return grpc::Status::OK;
#include "common/json.h"
  }
#include "common/json.h"
  std::pair<Clock::time_point, std::string> wait() {
#include "common/json.h"
    auto future = arrived_.get_future();
#include "common/json.h"
    if (future.wait_for(std::chrono::seconds(30)) != std::future_status::ready)
#include "common/json.h"
      throw std::runtime_error("no registration within 30 s");
#include "common/json.h"
    return future.get();
#include "common/json.h"
  }
#include "common/json.h"
 private:
#include "common/json.h"
  std::atomic<bool> taken_ = false;
#include "common/json.h"
  std::promise<std::pair<Clock::time_point, std::string>> arrived_;
#include "common/json.h"
};
#include "common/json.h"
using List = grpc::ClientReader<v1beta1::ListAndWatchResponse>;
#include "common/json.h"
// Returns when so many devices are listed, and healthy unless that doesn't matter.
#include "common/json.h"
std::vector<std::string> list(List& stream, size_t devices, bool anyHealth) {
#include "common/json.h"
  v1beta1::ListAndWatchResponse message;
#include "common/json.h"
  while (stream.Read(&message)) {
#include "common/json.h"
    std::vector<std::string> counted;
#include "common/json.h"
    for (const auto& device : message.devices())
#include "common/json.h"
      if (anyHealth || device.health() == "Healthy") counted.push_back(device.id());
#include "common/json.h"
    if (counted.size() == devices) return counted;
#include "common/json.h"
  }
#include "common/json.h"
  throw std::runtime_error("the plugin's stream ended before every device was there");
#include "common/json.h"
}
#include "common/json.h"
// A line for every list, with the time since boot at which it was there, as CLOCK_MONOTONIC has it.
#include "common/json.h"
void reportLists(List& stream) {
#include "common/json.h"
  v1beta1::ListAndWatchResponse message;
#include "common/json.h"
  while (stream.Read(&message)) {
#include "common/json.h"
    const double now = milliseconds(Clock::now().time_since_epoch());
#include "common/json.h"
    std::cout << nlohmann::json{{"devices", message.devices_size()}, {"at_ms", now}}.dump() << '\n'
#include "common/json.h"
              << std::flush;
#include "common/json.h"
  }
#include "common/json.h"
}
#include "common/json.h"
double percentile(const std::vector<double>& sorted, double share) {
#include "common/json.h"
  return sorted[std::min(sorted.size() - 1,
#include "common/json.h"
                         static_cast<size_t>(share * static_cast<double>(sorted.size())))];
#include "common/json.h"
}
#include "common/json.h"
}  // namespace
#include "common/json.h"
int main(int argc, char** argv) {
#include "common/json.h"
  std::string directory;
#include "common/json.h"
  size_t devices = 1;
#include "common/json.h"
  int calls = 0;
#include "common/json.h"
  bool anyHealth = false;
#include "common/json.h"
  std::vector<std::string> command;
#include "common/json.h"
  CLI::App app("Starts a device plugin and measures it as a kubelet sees it.\n");
#include "common/json.h"
  app.add_option("--dir", directory, "the plugin's kubelet directory")->required();
#include "common/json.h"
  app.add_option("--devices", devices, "how many healthy devices to wait for");
#include "common/json.h"
  app.add_flag("--any-health", anyHealth, "count unhealthy devices too");
#include "common/json.h"
  app.add_option("--calls", calls, "how many times to call Allocate");
#include "common/json.h"
  app.add_option("command", command, "the plugin and its arguments, after --")->required();
#include "common/json.h"
  CLI11_PARSE(app, argc, argv);
#include "common/json.h"
  pid_t child = -1;
#include "common/json.h"
  int status = 0;
#include "common/json.h"
  try {
#include "common/json.h"
    Registration registration;
#include "common/json.h"
    grpc::ServerBuilder builder;
#include "common/json.h"
    builder.AddListeningPort("unix:" + directory + "/kubelet.sock",
#include "common/json.h"
                             grpc::InsecureServerCredentials());
#include "common/json.h"
    builder.RegisterService(&registration);
#include "common/json.h"
    const auto server = builder.BuildAndStart();
#include "common/json.h"
    std::vector<char*> arguments;
#include "common/json.h"
    for (auto& argument : command) arguments.push_back(argument.data());
#include "common/json.h"
    arguments.push_back(nullptr);
#include "common/json.h"
    const auto started = Clock::now();
#include "common/json.h"
    if (::posix_spawn(&child, arguments[0], nullptr, nullptr, arguments.data(), environ) != 0)
#include "common/json.h"
      throw std::runtime_error("cannot start " + command[0]);
#include "common/json.h"
    const auto [registered, endpoint] = registration.wait();
#include "common/json.h"
    const auto plugin = v1beta1::DevicePlugin::NewStub(grpc::CreateChannel(
#include "common/json.h"
        "unix:" + directory + "/" + endpoint, grpc::InsecureChannelCredentials()));
#include "common/json.h"
    grpc::ClientContext listContext;
#include "common/json.h"
    const auto stream = plugin->ListAndWatch(&listContext, {});
#include "common/json.h"
    const auto ids = list(*stream, devices, anyHealth);
#include "common/json.h"
    const auto listed = Clock::now();
#include "common/json.h"
    std::vector<double> microseconds;
#include "common/json.h"
    for (int i = 0; i < calls + calls / 10; ++i) {
#include "common/json.h"
      v1beta1::AllocateRequest request;
#include "common/json.h"
      request.add_container_requests()->add_devices_ids(ids[i % ids.size()]);
#include "common/json.h"
      v1beta1::AllocateResponse response;
#include "common/json.h"
      grpc::ClientContext context;
#include "common/json.h"
      const auto from = Clock::now();
#include "common/json.h"
      const auto result = plugin->Allocate(&context, request, &response);
#include "common/json.h"
      const auto took = Clock::now() - from;
#include "common/json.h"
      if (!result.ok() || response.container_responses_size() != 1)
#include "common/json.h"
        throw std::runtime_error("Allocate failed: " + result.error_message());
#include "common/json.h"
      if (i >= calls / 10) microseconds.push_back(milliseconds(took) * 1000);  // after a warm-up
#include "common/json.h"
    }
#include "common/json.h"
    std::sort(microseconds.begin(), microseconds.end());
#include "common/json.h"
    nlohmann::json result = {{"pid", child},
#include "common/json.h"
                             {"registered_ms", milliseconds(registered - started)},
#include "common/json.h"
                             {"listed_ms", milliseconds(listed - started)}};
#include "common/json.h"
    if (calls > 0) {
#include "common/json.h"
      result["allocate_p50_us"] = percentile(microseconds, 0.5);
#include "common/json.h"
      result["allocate_p99_us"] = percentile(microseconds, 0.99);
#include "common/json.h"
    }
#include "common/json.h"
    std::cout << result.dump() << '\n' << std::flush;
#include "common/json.h"
    const std::jthread reporter([&stream] { reportLists(*stream); });
#include "common/json.h"
    for (std::string line; std::getline(std::cin, line);) continue;
#include "common/json.h"
    listContext.TryCancel();
#include "common/json.h"
  } catch (const std::exception& error) {
#include "common/json.h"
    std::cerr << "measuring-kubelet: " << error.what() << "\n";
#include "common/json.h"
    status = 1;
#include "common/json.h"
  }
#include "common/json.h"
  if (child > 0) {
#include "common/json.h"
    ::kill(child, SIGTERM);
#include "common/json.h"
    ::waitpid(child, nullptr, 0);
#include "common/json.h"
  }
#include "common/json.h"
  return status;
#include "common/json.h"
}
