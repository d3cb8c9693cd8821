// The ports without pollers, so that nothing has to be waited for but the loop's turn.
#include "deviceplugin/datapath/switch/ports/ports.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "common/event_loop.h"
#include "common/mac_address.h"
#include "common/port_settings.h"
#include "common/serving_page.h"
#include "common/unix_socket.h"
#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "deviceplugin/datapath/switch/forwarding/epoch.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"
#include "deviceplugin/datapath/switch/forwarding/offences.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/ports/capacity.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/message_socket.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "tests/unit/datapath/temporary_directory.h"

namespace {

using namespace vdpa;
using namespace vdpa::vswitch;

PortSettings settingsOf(uint8_t number, unsigned vlan = 0) {
  PortSettings settings = defaultSettings();
  settings.mac = MacAddress({2, 0, 0, 0, 0, number});
  settings.vlan = vlan;
  return settings;
}

class Node {
 public:
  Node() { std::filesystem::create_directories(std::filesystem::path(directory.path()) / "ports"); }
  ~Node() {
    ports.end();
    epoch.runAll();
  }

  std::string add(const std::string& id, uint8_t number, unsigned vlan = 0) {
    return ports.add(id, settingsOf(number, vlan), {}, std::nullopt);
  }
  // Runs what is due.
  void turn() {
    EventLoop::Timer timer(loop, [this] { loop.stop(); });
    timer.start(std::chrono::milliseconds(0));
    loop.run();
  }
  // The IDs of a VLAN's members.
  std::vector<std::string> members(uint16_t vlan) const {
    std::vector<std::string> ids;
    if (const auto* list = table.members(vlan))
      for (const Port* port : *list) ids.push_back(port->id);
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  // The ID of the port that has the address.
  std::string owner(uint8_t number, uint16_t vlan = 0) const {
    const Port* port = table.find(macs.lookup(0x020000000000 + number, vlan, 0));
    return port ? port->id : "";
  }
  std::filesystem::path file(const std::string& name) const {
    return std::filesystem::path(directory.path()) / "ports" / name;
  }

  TemporaryDirectory directory;
  EventLoop loop;
  PortTable table;
  MacTable macs;
  Offences offences;
  ServingPage serving{(std::filesystem::path(directory.path()) / "control.sock").string(), 1,
                      MacTable::kMaxPorts};
  Epoch epoch{0};
  std::vector<std::string> opened;
  Ports ports{{.directory = (std::filesystem::path(directory.path()) / "ports").string(),
               .cyclesPerSecond = 1000000000},
              {loop, epoch, table, macs, offences, serving, {}},
              {[](const std::string&, bool, const std::string&) {},
               [this](const std::string& id) { opened.push_back(id); }}};
};

using Ids = std::vector<std::string>;

}  // namespace

TEST_CASE_METHOD(Node, "a port has a socket, an address, and a place in its VLAN") {
  const std::string socket = add("a", 1, 7);
  CHECK(socket == file("a.sock"));
  connectUnix(socket);
  CHECK(members(7) == Ids{"a"});
  CHECK(owner(1, 7) == "a");
  CHECK_THROWS_WITH(add("a", 2), "port a exists already");
  CHECK(ports.ids() == Ids{"a"});
}

TEST_CASE_METHOD(Node, "only the lists of VLANs that a port enters or leaves are made again") {
  add("a", 1, 7);
  add("b", 2, 7);
  add("c", 3, 8);
  const auto* seven = table.members(7);
  const auto* eight = table.members(8);
  ports.set("a", settingsOf(9, 7), {});
  CHECK(table.members(7) == seven);
  CHECK(owner(9, 7) == "a");
  CHECK(owner(1, 7).empty());
  ports.set("a", settingsOf(1, 9), {});
  CHECK(members(7) == Ids{"b"});
  CHECK(members(9) == Ids{"a"});
  CHECK(table.members(8) == eight);
  ports.remove("a");
  CHECK(table.members(9) == nullptr);
}

TEST_CASE_METHOD(Node, "a removed port is gone at once, and can be added again") {
  const std::string socket = add("a", 1);
  const MacTable::Port number = macs.lookup(0x020000000001, 0, 0);
  ports.remove("a");
  CHECK_FALSE(std::filesystem::exists(socket));
  CHECK_THROWS_AS(connectUnix(socket), std::system_error);
  CHECK(members(0).empty());
  CHECK(owner(1).empty());
  CHECK(add("a", 1) == socket);
  CHECK(macs.lookup(0x020000000001, 0, 0) != number);  // a poller may still see the old one
  turn();
  ports.remove("a");
  turn();
  add("b", 1);
  CHECK(macs.lookup(0x020000000001, 0, 0) == number);
}

TEST_CASE_METHOD(Node, "an address goes back to the port that had it before") {
  add("a", 1);
  add("b", 1);
  CHECK(owner(1) == "b");
  ports.remove("b");
  CHECK(owner(1) == "a");
}

TEST_CASE_METHOD(Node, "a closed port has a mark instead of a socket, until its time is over") {
  using namespace std::chrono_literals;
  const std::string socket =
      ports.add("a", settingsOf(1), {}, Ports::Closure{20ms, 3, "crashed the switch"});
  CHECK_FALSE(std::filesystem::exists(socket));
  CHECK(std::filesystem::exists(file("a.closed")));
  const auto closed = ports.describe().ports(0).port().closed();
  CHECK(closed.milliseconds() > 0);
  CHECK(closed.milliseconds() <= 20);
  CHECK(closed.crashes() == 3);
  CHECK(closed.reason() == "crashed the switch");
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (opened.empty() && std::chrono::steady_clock::now() < deadline) turn();
  CHECK(opened == Ids{"a"});
  CHECK(std::filesystem::exists(socket));
  CHECK_FALSE(std::filesystem::exists(file("a.closed")));
  CHECK_FALSE(ports.describe().ports(0).port().has_closed());
}

TEST_CASE_METHOD(Node, "a connection that cannot be accepted waits, and costs no time meanwhile") {
  using namespace std::chrono_literals;
  vhost_user::MessageSocket front(connectUnix(add("a", 1)));
  REQUIRE(::fcntl(front.fd(), F_SETFL, O_NONBLOCK) == 0);
  front.send(
      vhost_user::encode(vhost_user::Request::GetFeatures, vhost_user::kVersion, nullptr, 0));
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{0, before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  const auto processorTime = [] {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  };
  const auto start = processorTime();
  EventLoop::Timer timer(loop, [this] { loop.stop(); });
  timer.start(200ms);
  loop.run();
  const auto used = processorTime() - start;
  ::setrlimit(RLIMIT_NOFILE, &before);
  CHECK(used < 100ms);
  CHECK_FALSE(front.receive());
  timer.start(1200ms);
  loop.run();
  CHECK(front.receive());
}

TEST_CASE_METHOD(Node, "what cannot be opened is not added") {
  std::filesystem::create_directory(file("a.sock"));
  CHECK_THROWS_WITH(add("a", 1), Catch::StartsWith("cannot open port a: "));
  CHECK(ports.ids().empty());
  CHECK(members(0).empty());
  std::filesystem::remove(file("a.sock"));
  add("a", 1);
}

TEST_CASE("a switch has room for 4,096 ports") {
  CHECK(Capacity::kMaxPorts == 4096);
  CHECK(MemoryGuard::kMaxRegions >= 2 * 8 * Capacity::kMaxPorts);
  CHECK(MacTable::kMaxPorts > Capacity::kMaxPorts);
}

TEST_CASE_METHOD(Node,
                 "verdicts are made again when a port's address or rights change, only then") {
  add("a", 1, 7);
  PortSettings settings = settingsOf(1, 7);
  const auto changes = [&] {
    const uint64_t before = table.version();
    ports.set("a", settings, {});
    return table.version() != before;
  };
  settings.mtu = 1400;
  CHECK_FALSE(changes());
  settings.trust = !*settings.trust;
  CHECK(changes());
  settings.spoofCheck = !*settings.spoofCheck;
  CHECK(changes());
  settings.mac = MacAddress({2, 0, 0, 0, 0, 9});
  CHECK(changes());
  settings.vlan = 8;
  CHECK(changes());
}
