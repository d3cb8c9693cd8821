// The control channel end to end over a real socket: answers, errors, events, a silent and a dying
// server.
#include "common/control_channel.h"

#include <catch2/catch.hpp>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "common/event_thread.h"
#include "common/json.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace std::chrono_literals;

namespace {

struct Server {
  explicit Server(const std::string& path, ControlServer::Handler handler)
      : server(std::make_unique<ControlServer>(path, std::move(handler))),
        thread([this] { run(); }) {}
  ~Server() {
    stop = true;
    thread.join();
  }
  void run() {
    while (!stop) {
      pollfd ready{server->fd(), POLLIN, 0};
      if (::poll(&ready, 1, 5) > 0) server->process();
      if (announce.exchange(false)) server->broadcast({{"event", "engine"}, {"up", true}});
    }
    server.reset();
  }
  std::unique_ptr<ControlServer> server;
  std::atomic<bool> stop = false, announce = false;
  std::thread thread;
};

// On a thread of its own; calls come from this one.
class Client {
 public:
  Client(const std::string& path, ControlClient::EventHandler onEvent,
         ControlClient::ClosedHandler onClosed) {
    thread_.run(
        [&] { client_.emplace(thread_.loop(), path, std::move(onEvent), std::move(onClosed)); });
  }
  ~Client() {
    thread_.run([this] { client_.reset(); });
  }
  nlohmann::json call(std::string op, nlohmann::json args = nlohmann::json::object(),
                      std::chrono::milliseconds timeout = 5s) {
    return thread_.wait(client_->call(std::move(op), std::move(args), timeout));
  }

 private:
  EventThread thread_;
  std::optional<ControlClient> client_;
};

}  // namespace

TEST_CASE("calls, errors and events pass the control channel") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  std::atomic<int> events = 0;
  std::atomic<int> closed = 0;
  {
    auto server =
        std::make_unique<Server>(path, [](const std::string& op, const nlohmann::json& args) {
          if (op != "echo") throw std::runtime_error("unknown operation '" + op + "'");
          return args;
        });
    Client client(
        path, [&](const nlohmann::json&) { ++events; }, [&] { ++closed; });
    CHECK(client.call("echo", {{"x", 1}}) == nlohmann::json{{"x", 1}});
    const std::string large(300000, 'x');
    CHECK(client.call("echo", {{"x", large}})["x"] == large);
    CHECK_THROWS_WITH(client.call("nonsense"), "unknown operation 'nonsense'");
    CHECK(askOnce(path, "echo", {{"x", large}})["x"] == large);
    CHECK_THROWS_WITH(askOnce(path, "nonsense"), "unknown operation 'nonsense'");

    server->announce = true;
    for (int i = 0; i < 500 && events == 0; ++i) std::this_thread::sleep_for(10ms);
    CHECK(events == 1);

    server.reset();
    CHECK_THROWS_WITH(client.call("echo"), Catch::Contains(path));
    for (int i = 0; i < 500 && closed == 0; ++i) std::this_thread::sleep_for(10ms);
    CHECK(closed == 1);
  }
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK_THROWS_AS(Client(path, nullptr, nullptr), std::system_error);
  CHECK_THROWS_AS(askOnce(path, "echo"), std::system_error);
}

TEST_CASE("a server that says nothing is given up on") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  ControlServer silent(path,
                       [](const std::string&, const nlohmann::json&) { return nlohmann::json(); });
  Client client(path, nullptr, nullptr);
  CHECK_THROWS_WITH(client.call("hello", {}, 50ms), Catch::Contains("timed out"));
  CHECK_THROWS_WITH(askOnce(path, "hello", {}, 50ms), Catch::Contains("timed out"));
}
