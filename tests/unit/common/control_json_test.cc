// Both forms of a message say the same: what goes through JSON is what it was.
#include "common/control_json.h"

#include <catch2/catch.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"

using namespace vdpa;
using control::Answer;
using control::Event;
using control::FromProcess;
using control::Request;

namespace {

void fill(control::Port& port) {
  port.set_id("nic-0");
  port.set_mac("02:00:00:00:00:01");
  port.set_vlan(100);
  port.set_mtu(1400);
  port.set_link_down(true);
  port.set_spoof_check(true);
  port.set_trust(true);
  port.set_max_tx_rate(500);
  port.set_vlan_trunk("200,300-310");
  port.set_max_rx_rate(600);
  port.set_burst(64);
  port.set_offloads(false);
  port.set_storm_limit(100);
  port.mutable_closed()->set_milliseconds(60000);
  port.mutable_closed()->set_crashes(2);
  port.mutable_closed()->set_reason("it crashed");
}

void fill(control::WorkerStatus& status) {
  status.set_ready(true);
  status.set_front(control::WorkerStatus::RUNNING);
  status.set_engine_up(true);
  status.set_reason("none");
  status.mutable_limits()->set_mac("02:00:00:00:00:01");
  status.mutable_limits()->set_mtu(1500);
  status.mutable_limits()->set_queue_pairs(4);
}

// Each operation, with all that it can have in JSON: no descriptors.
std::vector<Request> requests() {
  std::vector<Request> all(10);
  all[0].mutable_hello();
  all[1].mutable_stop();
  fill(*all[2].mutable_add_port());
  fill(*all[3].mutable_set_port());
  all[4].mutable_remove_port()->set_id("nic-0");
  all[5].mutable_ports();
  all[6].mutable_stats()->add_ports("nic-0");
  all[6].mutable_stats()->add_ports("nic-1");
  all[7].mutable_hold()->set_milliseconds(1000);
  all[8].mutable_go();
  all[9].mutable_capture()->set_port("nic-0");
  for (auto& request : all) request.set_id(7);
  return all;
}

struct Said {
  Request::OperationCase operation;
  FromProcess message;
};

std::vector<Said> answers() {
  std::vector<Said> all;
  const auto add = [&](Request::OperationCase operation) -> Answer& {
    auto& answer = *all.emplace_back(Said{operation, {}}).message.mutable_answer();
    answer.set_id(7);
    return answer;
  };
  for (const auto& request : requests()) add(request.operation_case()).set_error("no");
  for (const auto operation :
       {Request::kStop, Request::kSetPort, Request::kRemovePort, Request::kHold, Request::kGo})
    add(operation);

  auto& worker = *add(Request::kHello).mutable_hello();
  worker.set_program("vdpa-worker");
  worker.set_version("0.2.0");
  worker.set_pid(12);
  worker.set_frames(true);
  worker.mutable_worker()->set_device("nic-0");
  worker.mutable_worker()->set_socket("/run/x.sock");
  worker.mutable_worker()->set_unallocated(uint64_t{1} << 40);
  fill(*worker.mutable_worker()->mutable_status());
  auto& starting = *add(Request::kHello).mutable_hello();
  starting.set_program("vdpa-worker");
  starting.mutable_worker()->mutable_status()->set_front(control::WorkerStatus::LISTENING);
  auto& vswitch = *add(Request::kHello).mutable_hello();
  vswitch.set_program("vdpa-switch");
  vswitch.mutable_vswitch()->set_name("vdpa.io-nic");
  vswitch.mutable_vswitch()->set_queue_pairs(2);
  vswitch.mutable_vswitch()->set_mtu(1500);
  vswitch.mutable_vswitch()->set_uplink("eth1");
  vswitch.mutable_vswitch()->add_cores(2);
  vswitch.mutable_vswitch()->add_cores(3);
  vswitch.mutable_vswitch()->add_ports("nic-0");
  vswitch.mutable_vswitch()->set_uplink_xdp(true);
  auto& physical = *add(Request::kHello).mutable_hello();
  physical.set_program("vdpa-switch");
  physical.mutable_vswitch()->set_uplink_pci("0000:03:00.0");
  auto& pmd = *add(Request::kHello).mutable_hello();
  pmd.set_program("vdpa-pmd");
  pmd.mutable_pmd()->set_device("nic-0");
  pmd.mutable_pmd()->set_driver("ifc");
  pmd.mutable_pmd()->set_socket("/run/y.sock");
  pmd.mutable_pmd()->set_queue_pairs(2);
  pmd.mutable_pmd()->set_features(uint64_t{1} << 63);
  pmd.mutable_pmd()->mutable_status()->set_connected(true);
  auto& failed = *add(Request::kHello).mutable_hello();
  failed.set_program("vdpa-pmd");
  failed.mutable_pmd()->mutable_status()->set_reason("no such device");

  add(Request::kAddPort).mutable_add_port()->set_socket("/run/nic-0.sock");
  add(Request::kPorts).mutable_ports();
  auto& port = *add(Request::kPorts).mutable_ports()->add_ports();
  fill(*port.mutable_port());
  port.set_socket("/run/nic-0.sock");
  port.set_connected(true);
  auto& stats = *add(Request::kStats).mutable_switch_stats();
  auto& counters = *stats.add_ports();
  counters.set_id("nic-0");
  counters.set_rx_packets(UINT64_MAX);
  counters.set_rx_bytes(2);
  counters.set_tx_packets(3);
  counters.set_tx_bytes(4);
  counters.add_drops()->set_name("runt");
  counters.mutable_drops(0)->set_value(5);
  stats.add_busy_ns(6);
  auto& queue = *add(Request::kStats).mutable_pmd_stats()->add_queues();
  queue.set_queue(1);
  queue.add_counters()->set_name("packets");
  queue.mutable_counters(0)->set_value(7);
  return all;
}

std::vector<FromProcess> events() {
  std::vector<FromProcess> all(4);
  fill(*all[0].mutable_event()->mutable_worker());
  auto& pmd = *all[1].mutable_event()->mutable_pmd();
  pmd.set_ready(true);
  pmd.set_reason("none");
  auto& port = *all[2].mutable_event()->mutable_port();
  port.set_id("nic-0");
  port.set_connected(true);
  port.set_reason("memory truncated");
  all[3].mutable_event()->mutable_opened()->set_id("nic-0");
  return all;
}

}  // namespace

TEST_CASE("every operation has a name in JSON, and loses nothing there") {
  int operation = Request::kHello;
  for (const auto& request : requests()) {
    CHECK(request.operation_case() == operation++);
    const std::string line = requestToJson(request);
    INFO(line);
    CHECK(requestFromJson(line).SerializeAsString() == request.SerializeAsString());
    CHECK(parseJson(line).at("op") == operationName(request.operation_case()));
  }
  CHECK(operationName(static_cast<Request::OperationCase>(operation)).empty());
}

TEST_CASE("no answer and no event loses anything in JSON") {
  auto all = answers();
  for (const auto& event : events()) all.push_back({Request::OPERATION_NOT_SET, event});
  for (const auto& [operation, message] : all) {
    const std::string line = fromProcessToJson(message);
    INFO(line);
    const auto again = fromProcessFromJson(line, [&, known = operation](int64_t id) {
      CHECK(id == 7);
      return known;
    });
    REQUIRE(again);
    CHECK(again->SerializeAsString() == message.SerializeAsString());
  }
}

TEST_CASE("an absent argument is the default of 0.1.0") {
  const auto request =
      requestFromJson(R"({"id":1,"op":"add_port","args":{"id":"a","mac":"02:00:00:00:00:01"}})");
  const auto& port = request.add_port();
  CHECK_FALSE(port.has_mtu());
  CHECK_FALSE(port.link_down());
  CHECK_FALSE(port.spoof_check());
  CHECK(port.vlan() == 0);
  CHECK_FALSE(port.has_closed());
  CHECK(port.vlan_trunk().empty());
  CHECK_FALSE(port.has_offloads());
  CHECK(port.storm_limit() == 0);
  CHECK(requestFromJson(R"({"id":1,"op":"stats"})").stats().ports().empty());
}

TEST_CASE("a port that has only settings of 0.1.0 has only its names") {
  Request request;
  request.mutable_add_port()->set_id("nic-0");
  const auto arguments = parseJson(requestToJson(request)).at("args");
  CHECK(arguments.size() == 7);
  for (const char* name : {"vlan_trunk", "max_rx_rate", "burst", "offloads", "storm_limit"})
    CHECK_FALSE(arguments.contains(name));
}

TEST_CASE("the link of a trunk is down to 0.1.0, which would make it an access port") {
  FromProcess message;
  auto& list = *message.mutable_answer()->mutable_ports();
  list.add_ports()->mutable_port()->set_vlan_trunk("100-110");
  list.add_ports()->mutable_port()->set_id("access");
  const auto ports = parseJson(fromProcessToJson(message)).at("ok").at("ports");
  CHECK(ports[0].at("link_up") == false);
  CHECK(ports[1].at("link_up") == true);
}

TEST_CASE("a line that is no request says why, and which one it was") {
  const auto check = [](const std::string& line, std::optional<int64_t> id,
                        const std::string& words) {
    INFO(line);
    try {
      requestFromJson(line);
      FAIL("it is a request");
    } catch (const BadRequest& error) {
      CHECK(error.id == id);
      CHECK_THAT(error.what(), Catch::Contains(words));
    }
  };
  check("{", std::nullopt, "parse error");
  check("[]", std::nullopt, "");
  check(R"({"op":"hello"})", std::nullopt, "id");
  check(R"({"id":1})", 1, "op");
  check(R"({"id":1,"op":5})", 1, "string");
  check(R"({"id":1,"op":"nonsense"})", 1, "unknown operation 'nonsense'");
  check(R"({"id":1,"op":"set_port","args":{"vlan":4294967296}})", 1, "vlan 4294967296: expected");
  check(R"({"id":1,"op":"set_port","args":{"vlan":1.5}})", 1, "vlan 1.5: expected");
  check(R"({"id":1,"op":"set_port","args":{"vlan":"x"}})", 1, "vlan \"x\": expected");
  check(R"({"id":1,"op":"set_port","args":{"closed":7}})", 1, "closed 7: expected an object");
}

TEST_CASE("a line that is no message is none") {
  const auto none = [](int64_t) { return Request::OPERATION_NOT_SET; };
  CHECK_FALSE(fromProcessFromJson("nonsense", none));
  CHECK_FALSE(fromProcessFromJson("[]", none));
}
