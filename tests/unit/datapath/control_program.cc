// Stands in for vdpa-worker and vdpa-switch where only their control channel matters: answers
// vdpa-datapath's requests, creates the pod's and the ports' sockets as plain files, and keeps
// ports in a map. It follows our reading of the control protocol, not the programs: its engine is
// ready if its file exists, it accepts every setting of a port, and no packet passes. Tests with
// the real programs cover the rest: tests/system (test_datapath*.py), tests/vm/inside/test_kill.py,
// tests/soak.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/control_channel.h"
#include "common/control_lock.h"
#include "common/number_list.h"
#include "common/serving_page.h"

namespace {

std::map<std::string, std::string> parse(int argc, char** argv) {
  std::map<std::string, std::string> options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (equals != std::string::npos)
      options[argument.substr(2, equals - 2)] = argument.substr(equals + 1);
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  auto options = parse(argc, argv);
  if (options["name"] == "exits") return 7;
  if (options["name"] == "late") std::this_thread::sleep_for(std::chrono::milliseconds(300));
  if (options["name"] == "threads") std::thread([] { ::pause(); }).detach();
  const vdpa::ControlLock lock(options["control"]);
  if (options["name"] == "slow")  // waits for the test's file
    while (::access((options["control"] + ".go").c_str(), F_OK) < 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const bool worker = options.contains("device");
  std::map<std::string, nlohmann::json> ports;
  std::vector<unsigned> cores;
  for (const auto& range :
       vdpa::parseNumberList(options["cores"]).value_or(std::vector<vdpa::NumberRange>()))
    for (unsigned cpu = range.first; cpu <= range.last; ++cpu) cores.push_back(cpu);
  bool stop = false, ready = false;
  const auto state = [&]() -> nlohmann::json {
    return {{"ready", ready},
            {"front", "listening"},
            {"engine", ready ? "up" : "down"},
            {"reason", ""}};
  };
  // Its operations send events too; it exists before they run.
  vdpa::ControlServer* self = nullptr;
  vdpa::ControlServer server(
      options["control"],
      [&](const std::string& op, const nlohmann::json& args) -> nlohmann::json {
        if (op == "stop") {
          stop = true;
          return nlohmann::json::object();
        }
        if (op == "hello" && worker) {
          auto hello = state();
          hello.update({{"program", "vdpa-worker"}, {"pid", ::getpid()}});
          hello["device"] = options["device"];
          return hello;
        }
        if (op == "hello") {
          nlohmann::json ids = nlohmann::json::array();
          for (const auto& [id, port] : ports) ids.push_back(id);
          return {{"program", "vdpa-switch"},
                  {"pid", ::getpid()},
                  {"queue_pairs", std::stoi(options["queue-pairs"])},
                  {"mtu", std::stoi(options["mtu"])},
                  {"uplink", options["uplink"]},
                  {"cores", cores},
                  {"ports", ids}};
        }
        const std::string id = args.value("id", "");
        if (op == "add_port" && !ports.contains(id)) {
          while (::access((options["control"] + ".hold").c_str(), F_OK) == 0) {
            std::ofstream(options["control"] + ".held") << "";
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
          }
          ports[id] = args;
          const std::string socket = options["ports-dir"] + "/" + id + ".sock";
          std::ofstream(socket) << "";
          return {{"socket", socket}};
        }
        if (op == "set_port" && ports.contains(id)) {
          ports[id] = args;
          return nlohmann::json::object();
        }
        if (op == "remove_port" && ports.erase(id) == 1) {
          ::unlink((options["ports-dir"] + "/" + id + ".sock").c_str());
          return nlohmann::json::object();
        }
        if (op == "ports") {
          nlohmann::json all = nlohmann::json::array();
          for (const auto& [key, port] : ports) all.push_back(port);
          return {{"ports", all}};
        }
        if (op == "crash") {  // as a poller that serves this port's ring 1
          vdpa::ServingPage page(options["control"], 1, 2);
          page.name(1, id);
          vdpa::noteCrashesIn(page.cell(0));
          page.cell(0).begin(1, 1);
          ::raise(SIGABRT);  // sanitizers don't handle it
        }
        if (op == "serve") {  // also serves that ring, but until it is killed
          static vdpa::ServingPage page(options["control"], 1, 2);
          page.name(1, id);
          page.cell(0).begin(1, 1);
          return nlohmann::json::object();
        }
        if (op == "open") {
          self->broadcast({{"event", "opened"}, {"id", id}});
          return nlohmann::json::object();
        }
        if (op == "exit") ::_exit(args.value("status", 0));
        throw std::invalid_argument("cannot " + op + " " + id);
      },
      options.contains("control-fd") ? std::stoi(options["control-fd"]) : -1);
  self = &server;
  while (!stop) {
    const bool waits = worker && !ready;
    pollfd entry{server.fd(), POLLIN, 0};
    ::poll(&entry, 1, waits ? 1 : -1);
    server.process();
    const std::string engine =
        options.contains("engine") ? options["engine"] : options["switch-port"];
    if (!waits || (!engine.empty() && ::access(engine.c_str(), F_OK) < 0)) continue;
    std::ofstream(options["socket"]) << "";
    ready = true;
    auto event = state();
    event["event"] = "state";
    server.broadcast(event);
  }
  if (worker) ::unlink(options["socket"].c_str());
  return 0;
}
