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
#include <cstdint>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/control_channel.h"
#include "common/control_json.h"
#include "common/control_lock.h"
#include "common/control_stream.h"
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

namespace control = vdpa::control;

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
  std::map<std::string, control::Port> ports;
  std::vector<unsigned> cores;
  for (const auto& range :
       vdpa::parseNumberList(options["cores"]).value_or(std::vector<vdpa::NumberRange>()))
    for (unsigned cpu = range.first; cpu <= range.last; ++cpu) cores.push_back(cpu);
  bool stop = false, ready = false;
  const auto status = [&] {
    control::WorkerStatus status;
    status.set_ready(ready);
    status.set_front(control::WorkerStatus::LISTENING);
    status.set_engine_up(ready);
    return status;
  };
  const auto hello = [&] {
    control::HelloAnswer hello;
    hello.set_pid(::getpid());
    if (worker) {
      hello.set_program("vdpa-worker");
      hello.mutable_worker()->set_device(options["device"]);
      *hello.mutable_worker()->mutable_status() = status();
      return hello;
    }
    hello.set_program("vdpa-switch");
    std::string version;
    std::ifstream(options["control"] + ".version") >> version;
    hello.set_version(version);
    auto& vswitch = *hello.mutable_vswitch();
    vswitch.set_queue_pairs(static_cast<uint32_t>(std::stoi(options["queue-pairs"])));
    vswitch.set_mtu(static_cast<uint32_t>(std::stoi(options["mtu"])));
    const bool xdp = options.contains("uplink-xdp");
    vswitch.set_uplink(options[xdp ? "uplink-xdp" : "uplink"]);
    vswitch.set_uplink_xdp(xdp);
    vswitch.set_uplink_pci(options["uplink-pci"]);
    for (const unsigned core : cores) vswitch.add_cores(core);
    for (const auto& [id, port] : ports) vswitch.add_ports(id);
    return hello;
  };
  // Its operations send events too; it exists before they run.
  vdpa::ControlServer* self = nullptr;
  // Carries out a test's command beside the protocol: "crash nic-0", in a file.
  const auto obey = [&] {
    std::string command, id;
    std::ifstream(options["control"] + ".command") >> command >> id;
    if (command == "crash") {  // as a poller at this port's ring 1
      vdpa::ServingPage page(options["control"], 1, 2);
      page.name(1, id);
      vdpa::noteCrashesIn(page.cell(0));
      page.cell(0).begin(1, 1);
      ::raise(SIGABRT);  // which sanitizers leave to us
    }
    if (command == "serve") {  // at the same place, until it is killed
      static vdpa::ServingPage page(options["control"], 1, 2);
      page.name(1, id);
      page.cell(0).begin(1, 1);
    }
    if (command == "open") {
      control::Event event;
      event.mutable_opened()->set_id(id);
      self->broadcast(event);
    }
    if (command == "punish" || command == "connect") {
      control::Event event;
      event.mutable_port()->set_id(id);
      event.mutable_port()->set_connected(command == "connect");
      if (command == "punish") event.mutable_port()->set_reason("memory truncated");
      self->broadcast(event);
    }
    if (command == "exit") ::_exit(0);
  };
  vdpa::ControlServer server(
      options["control"],
      [&](const control::Request& request, vdpa::Descriptors&) {
        control::Answer answer;
        const auto refuse = [&](const std::string& id) {
          throw std::invalid_argument("cannot " + vdpa::operationName(request.operation_case()) +
                                      " " + id);
        };
        switch (request.operation_case()) {
          case control::Request::kStop:
            stop = true;
            break;
          case control::Request::kHello:
            *answer.mutable_hello() = hello();
            break;
          case control::Request::kAddPort: {
            const std::string id = request.add_port().id();
            if (ports.contains(id)) refuse(id);
            while (::access((options["control"] + ".hold").c_str(), F_OK) == 0) {
              std::ofstream(options["control"] + ".held") << "";
              std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            ports[id] = request.add_port();
            const std::string socket = options["ports-dir"] + "/" + id + ".sock";
            std::ofstream(socket) << "";
            answer.mutable_add_port()->set_socket(socket);
            break;
          }
          case control::Request::kSetPort:
            if (!ports.contains(request.set_port().id())) refuse(request.set_port().id());
            ports[request.set_port().id()] = request.set_port();
            break;
          case control::Request::kRemovePort: {
            const std::string id = request.remove_port().id();
            if (ports.erase(id) == 0) refuse(id);
            ::unlink((options["ports-dir"] + "/" + id + ".sock").c_str());
            break;
          }
          case control::Request::kPorts:
            for (const auto& [id, port] : ports)
              *answer.mutable_ports()->add_ports()->mutable_port() = port;
            answer.mutable_ports();
            break;
          case control::Request::kGo:
            obey();
            break;
          default:
            refuse("");
        }
        return answer;
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
    control::Event event;
    *event.mutable_worker() = status();
    server.broadcast(event);
  }
  if (worker) ::unlink(options["socket"].c_str());
  return 0;
}
