// A kubelet's side of the device plugin interface with a stopwatch: starts a plugin, measures how
// long it takes to register and to list its devices, and how long Allocate takes. Prints one line
// of JSON, then a line for every later list, and ends at the end of its input: meanwhile the caller
// examines the plugin and adds and removes devices. It has no other rules of a kubelet and no
// PodResources: the tests have those (tests/harness/kubelet.py). It measures ours and the peers,
// since a kubelet in Python would take longer than the measured calls.
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

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

class Registration final : public v1beta1::Registration::Service {
 public:
  grpc::Status Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
                        v1beta1::Empty*) override {
    if (!taken_.exchange(true)) arrived_.set_value({Clock::now(), request->endpoint()});
    return grpc::Status::OK;
  }

  std::pair<Clock::time_point, std::string> wait() {
    auto future = arrived_.get_future();
    if (future.wait_for(std::chrono::seconds(30)) != std::future_status::ready)
      throw std::runtime_error("no registration within 30 s");
    return future.get();
  }

 private:
  std::atomic<bool> taken_ = false;
  std::promise<std::pair<Clock::time_point, std::string>> arrived_;
};

using List = grpc::ClientReader<v1beta1::ListAndWatchResponse>;

// Returns once this many devices are listed, and are healthy unless `anyHealth`.
std::vector<std::string> list(List& stream, size_t devices, bool anyHealth) {
  v1beta1::ListAndWatchResponse message;
  while (stream.Read(&message)) {
    std::vector<std::string> counted;
    for (const auto& device : message.devices())
      if (anyHealth || device.health() == "Healthy") counted.push_back(device.id());
    if (counted.size() == devices) return counted;
  }
  throw std::runtime_error("the plugin's stream ended before every device was there");
}

// Prints a line for every list, with its time since boot by CLOCK_MONOTONIC.
void reportLists(List& stream) {
  v1beta1::ListAndWatchResponse message;
  while (stream.Read(&message)) {
    const double now = milliseconds(Clock::now().time_since_epoch());
    std::cout << nlohmann::json{{"devices", message.devices_size()}, {"at_ms", now}}.dump() << '\n'
              << std::flush;
  }
}

double percentile(const std::vector<double>& sorted, double share) {
  return sorted[std::min(sorted.size() - 1,
                         static_cast<size_t>(share * static_cast<double>(sorted.size())))];
}

}  // namespace

int main(int argc, char** argv) {
  std::string directory;
  size_t devices = 1;
  int calls = 0;
  bool anyHealth = false;
  std::vector<std::string> command;
  CLI::App app("Starts a device plugin and measures it as a kubelet sees it.\n");
  app.add_option("--dir", directory, "the plugin's kubelet directory")->required();
  app.add_option("--devices", devices, "how many healthy devices to wait for");
  app.add_flag("--any-health", anyHealth, "count unhealthy devices too");
  app.add_option("--calls", calls, "how many times to call Allocate");
  app.add_option("command", command, "the plugin and its arguments, after --")->required();
  CLI11_PARSE(app, argc, argv);

  pid_t child = -1;
  int status = 0;
  try {
    Registration registration;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + directory + "/kubelet.sock",
                             grpc::InsecureServerCredentials());
    builder.RegisterService(&registration);
    const auto server = builder.BuildAndStart();

    std::vector<char*> arguments;
    for (auto& argument : command) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    const auto started = Clock::now();
    if (::posix_spawn(&child, arguments[0], nullptr, nullptr, arguments.data(), environ) != 0)
      throw std::runtime_error("cannot start " + command[0]);

    const auto [registered, endpoint] = registration.wait();
    const auto plugin = v1beta1::DevicePlugin::NewStub(grpc::CreateChannel(
        "unix:" + directory + "/" + endpoint, grpc::InsecureChannelCredentials()));
    grpc::ClientContext listContext;
    const auto stream = plugin->ListAndWatch(&listContext, {});
    const auto ids = list(*stream, devices, anyHealth);
    const auto listed = Clock::now();

    std::vector<double> microseconds;
    for (int i = 0; i < calls + calls / 10; ++i) {
      v1beta1::AllocateRequest request;
      request.add_container_requests()->add_devices_ids(ids[i % ids.size()]);
      v1beta1::AllocateResponse response;
      grpc::ClientContext context;
      const auto from = Clock::now();
      const auto result = plugin->Allocate(&context, request, &response);
      const auto took = Clock::now() - from;
      if (!result.ok() || response.container_responses_size() != 1)
        throw std::runtime_error("Allocate failed: " + result.error_message());
      if (i >= calls / 10) microseconds.push_back(milliseconds(took) * 1000);  // after a warm-up
    }
    std::sort(microseconds.begin(), microseconds.end());

    nlohmann::json result = {{"pid", child},
                             {"registered_ms", milliseconds(registered - started)},
                             {"listed_ms", milliseconds(listed - started)}};
    if (calls > 0) {
      result["allocate_p50_us"] = percentile(microseconds, 0.5);
      result["allocate_p99_us"] = percentile(microseconds, 0.99);
    }
    std::cout << result.dump() << '\n' << std::flush;
    const std::jthread reporter([&stream] { reportLists(*stream); });
    for (std::string line; std::getline(std::cin, line);) continue;
    listContext.TryCancel();
  } catch (const std::exception& error) {
    std::cerr << "measuring-kubelet: " << error.what() << "\n";
    status = 1;
  }
  if (child > 0) {
    ::kill(child, SIGTERM);
    ::waitpid(child, nullptr, 0);
  }
  return status;
}
