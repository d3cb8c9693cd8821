#include "common/control_json.h"

#include <fmt/core.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/json.h"

namespace vdpa {
namespace {

using Json = nlohmann::json;
using control::Request;

struct Operation {
  Request::OperationCase operation;
  const char* name;
};
constexpr Operation kOperations[] = {
    {Request::kHello, "hello"},
    {Request::kStop, "stop"},
    {Request::kAddPort, "add_port"},
    {Request::kSetPort, "set_port"},
    {Request::kRemovePort, "remove_port"},
    {Request::kPorts, "ports"},
    {Request::kStats, "stats"},
    {Request::kHold, "hold"},
    {Request::kGo, "go"},
    {Request::kCapture, "capture"},
};

Request::OperationCase operationOf(const std::string& name) {
  for (const auto& each : kOperations)
    if (name == each.name) return each.operation;
  throw std::invalid_argument(fmt::format("unknown operation '{}'", name));
}

struct FrontName {
  control::WorkerStatus::Front front;
  const char* name;
};
constexpr FrontName kFronts[] = {{control::WorkerStatus::NONE, ""},
                                 {control::WorkerStatus::LISTENING, "listening"},
                                 {control::WorkerStatus::CONNECTED, "connected"},
                                 {control::WorkerStatus::RUNNING, "running"}};

// --- reading: an absent key leaves the field's default

std::string textAt(const Json& json, const char* key) {
  return json.value(key, std::string());
}

bool flagAt(const Json& json, const char* key) {
  return json.value(key, false);
}

template <typename Number>
Number numberAt(const Json& json, const char* key, Number otherwise = 0) {
  const auto found = json.find(key);
  if (found == json.end()) return otherwise;
  using Limits = std::numeric_limits<Number>;
  if (found->is_number_unsigned() && found->get<uint64_t>() <= static_cast<uint64_t>(Limits::max()))
    return found->get<Number>();
  if (found->is_number_integer() && !found->is_number_unsigned() &&
      std::in_range<Number>(found->get<int64_t>()))
    return found->get<Number>();
  throw std::invalid_argument(fmt::format("{} {}: expected a whole number of {} to {}", key,
                                          anyJsonText(*found), Limits::min(), Limits::max()));
}

const Json& objectAt(const Json& json, const char* key) {
  const Json& object = json.at(key);
  if (!object.is_object())
    throw std::invalid_argument(fmt::format("{} {}: expected an object", key, anyJsonText(object)));
  return object;
}

template <typename Values, typename Add>
void readList(const Json& json, const char* key, Add add) {
  for (const auto& value : json.value(key, Values())) add(value);
}

void readPort(const Json& json, control::Port& port) {
  port.set_id(textAt(json, "id"));
  port.set_mac(textAt(json, "mac"));
  port.set_vlan(numberAt<int32_t>(json, "vlan"));
  if (json.contains("mtu")) port.set_mtu(numberAt<int32_t>(json, "mtu"));
  port.set_link_down(!json.value("link_up", true));
  port.set_spoof_check(flagAt(json, "spoof_check"));
  port.set_trust(flagAt(json, "trust"));
  port.set_max_tx_rate(numberAt<int32_t>(json, "max_tx_rate"));
  port.set_vlan_trunk(textAt(json, "vlan_trunk"));
  port.set_max_rx_rate(numberAt<int32_t>(json, "max_rx_rate"));
  port.set_burst(numberAt<int32_t>(json, "burst"));
  if (json.contains("offloads")) port.set_offloads(flagAt(json, "offloads"));
  port.set_storm_limit(numberAt<int32_t>(json, "storm_limit"));
  if (!json.contains("closed")) return;
  const Json& closed = objectAt(json, "closed");
  auto& closure = *port.mutable_closed();
  closure.set_milliseconds(numberAt<int64_t>(closed, "ms", 1));
  closure.set_crashes(numberAt<int64_t>(closed, "crashes", 1));
  closure.set_reason(textAt(closed, "reason"));
}

Request readRequest(const Json& json) {
  Request request;
  const Json arguments = json.value("args", Json::object());
  switch (operationOf(json.at("op").get<std::string>())) {
    case Request::kHello:
      request.mutable_hello();
      break;
    case Request::kStop:
      request.mutable_stop();
      break;
    case Request::kAddPort:
      readPort(arguments, *request.mutable_add_port());
      break;
    case Request::kSetPort:
      readPort(arguments, *request.mutable_set_port());
      break;
    case Request::kRemovePort:
      request.mutable_remove_port()->set_id(textAt(arguments, "id"));
      break;
    case Request::kPorts:
      request.mutable_ports();
      break;
    case Request::kStats:
      request.mutable_stats();
      readList<std::vector<std::string>>(arguments, "ports", [&](const std::string& id) {
        request.mutable_stats()->add_ports(id);
      });
      break;
    case Request::kHold:
      request.mutable_hold()->set_milliseconds(numberAt<int64_t>(arguments, "ms"));
      break;
    case Request::kGo:
      request.mutable_go();
      break;
    case Request::kCapture:  // without its descriptors
      request.mutable_capture()->set_port(textAt(arguments, "port"));
      break;
    case Request::OPERATION_NOT_SET:
      break;
  }
  return request;
}

void readWorkerStatus(const Json& json, control::WorkerStatus& status) {
  status.set_ready(flagAt(json, "ready"));
  for (const auto& each : kFronts)
    if (textAt(json, "front") == each.name) status.set_front(each.front);
  status.set_engine_up(textAt(json, "engine") == "up");
  status.set_reason(textAt(json, "reason"));
  if (!json.contains("mtu")) return;
  auto& limits = *status.mutable_limits();
  limits.set_mac(textAt(json, "mac"));
  limits.set_mtu(numberAt<uint32_t>(json, "mtu"));
  limits.set_queue_pairs(numberAt<uint32_t>(json, "queue_pairs"));
}

void readPmdStatus(const Json& json, control::PmdStatus& status) {
  status.set_ready(flagAt(json, "ready"));
  status.set_connected(flagAt(json, "connected"));
  status.set_reason(textAt(json, "reason"));
}

void readHello(const Json& json, control::HelloAnswer& hello) {
  hello.set_program(textAt(json, "program"));
  hello.set_version(textAt(json, "version"));
  hello.set_pid(numberAt<int32_t>(json, "pid"));
  hello.set_frames(flagAt(json, "frames"));
  if (hello.program() == "vdpa-worker") {
    auto& worker = *hello.mutable_worker();
    worker.set_device(textAt(json, "device"));
    worker.set_socket(textAt(json, "socket"));
    readWorkerStatus(json, *worker.mutable_status());
    if (json.contains("unallocated"))
      worker.set_unallocated(numberAt<uint64_t>(json, "unallocated"));
  } else if (hello.program() == "vdpa-switch") {
    auto& vswitch = *hello.mutable_vswitch();
    vswitch.set_name(textAt(json, "name"));
    vswitch.set_queue_pairs(numberAt<uint32_t>(json, "queue_pairs"));
    vswitch.set_mtu(numberAt<uint32_t>(json, "mtu"));
    vswitch.set_uplink(textAt(json, "uplink"));
    if (json.contains("uplink_xdp")) vswitch.set_uplink_xdp(flagAt(json, "uplink_xdp"));
    if (json.contains("uplink_pci")) vswitch.set_uplink_pci(textAt(json, "uplink_pci"));
    readList<std::vector<uint32_t>>(json, "cores", [&](uint32_t core) { vswitch.add_cores(core); });
    readList<std::vector<std::string>>(json, "ports",
                                       [&](const std::string& id) { vswitch.add_ports(id); });
  } else if (hello.program() == "vdpa-pmd") {
    auto& pmd = *hello.mutable_pmd();
    pmd.set_device(textAt(json, "device"));
    pmd.set_driver(textAt(json, "driver"));
    pmd.set_socket(textAt(json, "socket"));
    readPmdStatus(json, *pmd.mutable_status());
    pmd.set_queue_pairs(numberAt<uint32_t>(json, "queue_pairs"));
    pmd.set_features(numberAt<uint64_t>(json, "features"));
  }
}

void readPorts(const Json& json, control::PortList& list) {
  for (const auto& each : json.at("ports")) {
    auto& port = *list.add_ports();
    readPort(each, *port.mutable_port());
    port.set_socket(textAt(each, "socket"));
    port.set_connected(flagAt(each, "connected"));
  }
}

void readSwitchStats(const Json& json, control::SwitchStats& stats) {
  for (const auto& each : json.at("ports")) {
    auto& port = *stats.add_ports();
    port.set_id(textAt(each, "id"));
    port.set_rx_packets(numberAt<uint64_t>(each, "rx_packets"));
    port.set_rx_bytes(numberAt<uint64_t>(each, "rx_bytes"));
    port.set_tx_packets(numberAt<uint64_t>(each, "tx_packets"));
    port.set_tx_bytes(numberAt<uint64_t>(each, "tx_bytes"));
    for (const auto& [reason, count] : each.at("drops").items()) {
      auto& drop = *port.add_drops();
      drop.set_name(reason);
      drop.set_value(count.get<uint64_t>());
    }
  }
  readList<std::vector<int64_t>>(json, "busy_ns", [&](int64_t time) { stats.add_busy_ns(time); });
}

void readPmdStats(const Json& json, control::PmdStats& stats) {
  for (const auto& each : json.at("queues")) {
    auto& queue = *stats.add_queues();
    for (const auto& [name, value] : each.items()) {
      if (name == "queue") {
        queue.set_queue(value.get<uint32_t>());
        continue;
      }
      auto& counter = *queue.add_counters();
      counter.set_name(name);
      counter.set_value(value.get<uint64_t>());
    }
  }
}

void readResult(const Json& json, Request::OperationCase operation, control::Answer& answer) {
  switch (operation) {
    case Request::kHello:
      return readHello(json, *answer.mutable_hello());
    case Request::kAddPort:
      return answer.mutable_add_port()->set_socket(textAt(json, "socket"));
    case Request::kPorts:
      return readPorts(json, *answer.mutable_ports());
    case Request::kStats:
      if (json.contains("queues")) return readPmdStats(json, *answer.mutable_pmd_stats());
      return readSwitchStats(json, *answer.mutable_switch_stats());
    default:
      return;  // there is nothing to tell
  }
}

void readEvent(const Json& json, control::Event& event) {
  const std::string name = textAt(json, "event");
  if (name == "state" && json.contains("engine")) {
    readWorkerStatus(json, *event.mutable_worker());
  } else if (name == "state") {
    readPmdStatus(json, *event.mutable_pmd());
  } else if (name == "port") {
    auto& port = *event.mutable_port();
    port.set_id(textAt(json, "id"));
    port.set_connected(flagAt(json, "connected"));
    port.set_reason(textAt(json, "reason"));
  } else if (name == "opened") {
    event.mutable_opened()->set_id(textAt(json, "id"));
  }
}

// --- writing

Json portJson(const control::Port& port) {
  Json json{{"id", port.id()},
            {"mac", port.mac()},
            {"vlan", port.vlan()},
            {"link_up", !port.link_down()},
            {"spoof_check", port.spoof_check()},
            {"trust", port.trust()},
            {"max_tx_rate", port.max_tx_rate()}};
  if (port.has_mtu()) json["mtu"] = port.mtu();
  if (!port.vlan_trunk().empty()) json["vlan_trunk"] = port.vlan_trunk();
  if (port.max_rx_rate() != 0) json["max_rx_rate"] = port.max_rx_rate();
  if (port.burst() != 0) json["burst"] = port.burst();
  if (port.has_offloads()) json["offloads"] = port.offloads();
  if (port.storm_limit() != 0) json["storm_limit"] = port.storm_limit();
  if (port.has_closed())
    json["closed"] = {{"ms", port.closed().milliseconds()},
                      {"crashes", port.closed().crashes()},
                      {"reason", port.closed().reason()}};
  return json;
}

Json argumentsJson(const Request& request) {
  switch (request.operation_case()) {
    case Request::kAddPort:
      return portJson(request.add_port());
    case Request::kSetPort:
      return portJson(request.set_port());
    case Request::kRemovePort:
      return {{"id", request.remove_port().id()}};
    case Request::kStats:
      return {{"ports", request.stats().ports()}};
    case Request::kHold:
      return {{"ms", request.hold().milliseconds()}};
    case Request::kCapture:
      return {{"port", request.capture().port()}};
    default:
      return Json::object();
  }
}

Json workerStatusJson(const control::WorkerStatus& status) {
  Json json{{"ready", status.ready()},
            {"front", ""},
            {"engine", status.engine_up() ? "up" : "down"},
            {"reason", status.reason()}};
  for (const auto& each : kFronts)
    if (status.front() == each.front) json["front"] = each.name;
  if (!status.has_limits()) return json;
  if (!status.limits().mac().empty()) json["mac"] = status.limits().mac();
  json["mtu"] = status.limits().mtu();
  json["queue_pairs"] = status.limits().queue_pairs();
  return json;
}

Json pmdStatusJson(const control::PmdStatus& status) {
  return {
      {"ready", status.ready()}, {"connected", status.connected()}, {"reason", status.reason()}};
}

Json helloJson(const control::HelloAnswer& hello) {
  Json json = Json::object();
  switch (hello.process_case()) {
    case control::HelloAnswer::kWorker: {
      const auto& worker = hello.worker();
      json = workerStatusJson(worker.status());
      json["device"] = worker.device();
      json["socket"] = worker.socket();
      if (worker.has_unallocated()) json["unallocated"] = worker.unallocated();
      break;
    }
    case control::HelloAnswer::kVswitch: {
      const auto& vswitch = hello.vswitch();
      json = {{"name", vswitch.name()},   {"queue_pairs", vswitch.queue_pairs()},
              {"mtu", vswitch.mtu()},     {"uplink", vswitch.uplink()},
              {"cores", vswitch.cores()}, {"ports", vswitch.ports()}};
      if (vswitch.uplink_xdp()) json["uplink_xdp"] = true;
      if (!vswitch.uplink_pci().empty()) json["uplink_pci"] = vswitch.uplink_pci();
      break;
    }
    case control::HelloAnswer::kPmd: {
      const auto& pmd = hello.pmd();
      json = pmdStatusJson(pmd.status());
      json["device"] = pmd.device();
      json["driver"] = pmd.driver();
      json["socket"] = pmd.socket();
      if (pmd.queue_pairs() == 0) break;
      json["queue_pairs"] = pmd.queue_pairs();
      json["features"] = pmd.features();
      break;
    }
    case control::HelloAnswer::PROCESS_NOT_SET:
      break;
  }
  json["program"] = hello.program();
  json["version"] = hello.version();
  json["pid"] = hello.pid();
  if (hello.frames()) json["frames"] = true;
  return json;
}

// Only 0.1.0 gets its answers in JSON. It knows no trunks, and gives a port that it reads here back
// to the switch without: as an access port that would be open to other pods. So it reads that such
// a port's link is down.
Json portsJson(const control::PortList& list) {
  Json ports = Json::array();
  for (const auto& each : list.ports()) {
    Json port = portJson(each.port());
    if (!each.port().vlan_trunk().empty()) port["link_up"] = false;
    port["socket"] = each.socket();
    port["connected"] = each.connected();
    ports.push_back(std::move(port));
  }
  return {{"ports", ports}};
}

Json switchStatsJson(const control::SwitchStats& stats) {
  Json ports = Json::array();
  for (const auto& each : stats.ports()) {
    Json drops = Json::object();
    for (const auto& drop : each.drops()) drops[drop.name()] = drop.value();
    ports.push_back({{"id", each.id()},
                     {"rx_packets", each.rx_packets()},
                     {"rx_bytes", each.rx_bytes()},
                     {"tx_packets", each.tx_packets()},
                     {"tx_bytes", each.tx_bytes()},
                     {"drops", std::move(drops)}});
  }
  return {{"ports", ports}, {"busy_ns", stats.busy_ns()}};
}

Json pmdStatsJson(const control::PmdStats& stats) {
  Json queues = Json::array();
  for (const auto& each : stats.queues()) {
    Json queue{{"queue", each.queue()}};
    for (const auto& counter : each.counters()) queue[counter.name()] = counter.value();
    queues.push_back(std::move(queue));
  }
  return {{"queues", queues}};
}

Json resultJson(const control::Answer& answer) {
  switch (answer.result_case()) {
    case control::Answer::kHello:
      return helloJson(answer.hello());
    case control::Answer::kAddPort:
      return {{"socket", answer.add_port().socket()}};
    case control::Answer::kPorts:
      return portsJson(answer.ports());
    case control::Answer::kSwitchStats:
      return switchStatsJson(answer.switch_stats());
    case control::Answer::kPmdStats:
      return pmdStatsJson(answer.pmd_stats());
    default:
      return Json::object();
  }
}

Json eventJson(const control::Event& event) {
  Json json = Json::object();
  switch (event.event_case()) {
    case control::Event::kWorker:
      json = workerStatusJson(event.worker());
      json["event"] = "state";
      break;
    case control::Event::kPmd:
      json = pmdStatusJson(event.pmd());
      json["event"] = "state";
      break;
    case control::Event::kPort:
      json = {{"event", "port"},
              {"id", event.port().id()},
              {"connected", event.port().connected()},
              {"reason", event.port().reason()}};
      break;
    case control::Event::kOpened:
      json = {{"event", "opened"}, {"id", event.opened().id()}};
      break;
    case control::Event::EVENT_NOT_SET:
      break;
  }
  return json;
}

}  // namespace

std::string operationName(Request::OperationCase operation) {
  for (const auto& each : kOperations)
    if (operation == each.operation) return each.name;
  return "";
}

std::string requestToJson(const Request& request) {
  return jsonText({{"id", request.id()},
                   {"op", operationName(request.operation_case())},
                   {"args", argumentsJson(request)}});
}

Request requestFromJson(const std::string& line) {
  std::optional<int64_t> id;
  try {
    const Json json = parseJson(line);
    id = json.at("id").get<int64_t>();
    Request request = readRequest(json);
    request.set_id(*id);
    return request;
  } catch (const std::exception& error) {
    throw BadRequest(error.what(), id);
  }
}

std::string fromProcessToJson(const control::FromProcess& message) {
  if (message.has_event()) return anyJsonText(eventJson(message.event()));
  const auto& answer = message.answer();
  Json json = Json::object();
  if (answer.has_id()) json["id"] = answer.id();
  if (answer.has_error())
    json["error"] = answer.error();
  else
    json["ok"] = resultJson(answer);
  return anyJsonText(json);
}

std::optional<control::FromProcess> fromProcessFromJson(
    const std::string& line, const std::function<Request::OperationCase(int64_t id)>& operationOf) {
  const Json json = tryParseJson(line);
  if (!json.is_object()) return std::nullopt;
  control::FromProcess message;
  if (json.contains("event")) {
    readEvent(json, *message.mutable_event());
    return message;
  }
  const auto id = numberAt<int64_t>(json, "id");
  const auto operation = operationOf(id);
  auto& answer = *message.mutable_answer();
  answer.set_id(id);
  if (json.contains("error"))
    answer.set_error(json["error"].get<std::string>());
  else
    readResult(json.value("ok", Json::object()), operation, answer);
  return message;
}

}  // namespace vdpa
