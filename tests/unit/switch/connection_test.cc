#include "deviceplugin/datapath/switch/ports/connection.h"

#include <catch2/catch.hpp>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "deviceplugin/datapath/switch/forwarding/epoch.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/offload/offloads.h"
#include "deviceplugin/datapath/switch/ports/closer.h"
#include "deviceplugin/datapath/switch/ports/features.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/message_socket.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/fault.h"
#include "deviceplugin/datapath/virtqueue/split_ring.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/worker/front_end.h"

namespace {

using namespace vdpa;
using namespace vdpa::vswitch;
using namespace vdpa::vhost_user;
using namespace vdpa::vhost_user::test;

constexpr uint64_t kBase = 0x10000;  // of the shared memory, as in front_end.h

std::pair<UniqueFd, UniqueFd> socketPair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
    throw std::runtime_error("socketpair");
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// A connection with its other side, a worker; and in place of the pollers, the test.
class Served {
 public:
  explicit Served(bool offloads = true) : Served(offloads, socketPair()) {}
  ~Served() {
    if (connection) connection->end();
    epoch.runAll();
  }

  // Lets the connection handle what has been sent.
  void pump() {
    EventLoop::Timer timer(loop, [this] { loop.stop(); });
    timer.start(std::chrono::milliseconds(0));
    loop.run();
  }
  // A pass of the pollers.
  void pass() {
    epoch.drain(0);
    epoch.enter(0, [] {});
    epoch.runDue();
    pump();
  }

  void send(Message message) {
    std::vector<SharedFd> descriptors;
    for (UniqueFd& fd : message.descriptors)
      descriptors.push_back(std::make_shared<const UniqueFd>(std::move(fd)));
    if (!front->send(
            encode(message.request, message.flags, message.payload.data(), message.payload.size()),
            std::move(descriptors)))
      throw std::runtime_error("the connection is closed");
    pump();
  }
  // The same, acknowledged.
  void set(Message message) {
    message.flags |= kNeedReplyFlag;
    send(std::move(message));
    const auto reply = receive();
    if (!reply || reply->as<uint64_t>() != 0) throw std::runtime_error("not acknowledged");
  }
  std::optional<Message> receive() { return front->receive(); }
  template <typename T>
  T ask(Message message) {
    send(std::move(message));
    const auto reply = receive();
    if (!reply) throw std::runtime_error("no reply");
    return reply->as<T>();
  }

  // Sets up everything but starts no ring. Returns the shared memory's file.
  UniqueFd setUp(uint64_t features = feature::kVersion1, uint32_t base = 0) {
    send(with(Request::SetProtocolFeatures,
              protocol_feature::kReplyAck | protocol_feature::kMultiqueue));
    set(with(Request::SetFeatures, features | feature::kProtocolFeatures));
    UniqueFd file = share();
    for (uint32_t ring = 0; ring < 2; ++ring) {
      set(state(Request::SetVringNum, ring, 256));
      set(state(Request::SetVringBase, ring, base));
      set(addresses(ring));
      set(with(Request::SetVringCall, ring, eventFd()));
    }
    return file;
  }
  UniqueFd share() {
    UniqueFd file = memoryFile(0x10000);
    send(memoryTable(UniqueFd(::dup(file.get())), 0x10000));
    return file;
  }
  void start(uint32_t ring) { send(with(Request::SetVringKick, ring, eventFd())); }
  void enable(uint32_t ring, bool on = true) { send(state(Request::SetVringEnable, ring, on)); }
  UniqueFd run() {
    UniqueFd file = setUp();
    for (const uint32_t ring : {0, 1}) {
      start(ring);
      enable(ring);
    }
    pass();
    return file;
  }

  EventLoop loop;
  Epoch epoch{1};
  MemoryGuard guard{MemoryGuard::Unknown::kCrash, [](void*, int) {}, nullptr};
  Closer closer;
  Port port;
  std::vector<TransmitQueue*> assigned;
  std::vector<bool> connected;
  std::optional<std::string> ended;
  unsigned receiveChanges = 0;
  std::optional<MessageSocket> front;
  std::unique_ptr<Connection> connection;

 private:
  Served(bool offloads, std::pair<UniqueFd, UniqueFd> ends) : front(std::move(ends.first)) {
    port.number = 7;
    Connection::Events events;
    events.assign = [this](TransmitQueue& queue) { assigned.push_back(&queue); };
    events.withdraw = [this](TransmitQueue& queue) { std::erase(assigned, &queue); };
    events.receiveChanged = [this] { ++receiveChanges; };
    events.connected = [this](bool now) { connected.push_back(now); };
    events.ended = [this](const std::string& reason) { ended = reason; };
    connection = std::make_unique<Connection>(Connection::Shared{loop, epoch, guard, closer},
                                              std::move(ends.second), port,
                                              offeredFeatures(offloads, 3), std::move(events));
  }
};

// The driver of split ring 1 in a shared file, as far as needed: makes empty frames available.
class Driver {
 public:
  explicit Driver(const UniqueFd& file)
      : data_(::mmap(nullptr, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0)) {}
  ~Driver() { ::munmap(data_, 0x10000); }
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  void offer(uint16_t count) {
    for (uint16_t i = 0; i < count; ++i) {
      const virtqueue::Descriptor descriptor{kBase, 64, 0, 0};
      std::memcpy(at(0x4000 + 16 * i), &descriptor, sizeof descriptor);
      std::memcpy(at(0x5004 + 2 * i), &i, sizeof i);
    }
    std::memcpy(at(0x5002), &count, sizeof count);
  }

 private:
  std::byte* at(size_t offset) { return static_cast<std::byte*>(data_) + offset; }
  void* data_;
};

// Takes frames from a queue and gives them back, as a poller does.
size_t serve(TransmitQueue& queue, size_t most) {
  auto& ring = std::get<virtqueue::SplitRing>(queue.ring);
  const auto list = std::make_unique<virtqueue::BufferList>();
  virtqueue::Lease lease;
  const size_t count = virtqueue::fetch(ring, *list, most, lease);
  virtqueue::giveBack(ring, *list, lease);
  return count;
}

}  // namespace

TEST_CASE("a worker learns what a port offers") {
  Served served;
  CHECK(served.ask<uint64_t>(empty(Request::GetFeatures)) == offeredFeatures(true, 3).features);
  CHECK((served.ask<uint64_t>(empty(Request::GetProtocolFeatures)) & 9) == 9);  // MQ, REPLY_ACK
  served.send(with(Request::SetProtocolFeatures, protocol_feature::kMultiqueue));
  CHECK(served.ask<uint64_t>(empty(Request::GetQueueNum)) == 3);
  CHECK(Served(false).ask<uint64_t>(empty(Request::GetFeatures)) ==
        offeredFeatures(false, 3).features);
}

TEST_CASE("the pollers get rings that are started and enabled") {
  Served served;
  served.setUp(feature::kVersion1 | feature::kMergeableBuffers | feature::kGuestChecksum);
  served.start(0);
  served.start(1);
  CHECK(served.assigned.empty());
  CHECK(served.connection->receive().empty());

  served.enable(1);
  REQUIRE(served.assigned.size() == 1);
  const TransmitQueue& transmit = *served.assigned[0];
  CHECK(transmit.index == 1);
  CHECK(transmit.port == &served.port);
  CHECK(transmit.kick >= 0);
  CHECK(transmit.call >= 0);
  CHECK(transmit.offloads == Offloads::kNone);
  CHECK(served.connected.empty());

  served.enable(0);
  REQUIRE(served.connection->receive().size() == 1);
  const ReceiveQueue& receive = *served.connection->receive()[0];
  CHECK(receive.index == 0);
  CHECK(receive.format.headerSize == 12);
  CHECK(receive.format.mergeable);
  CHECK(receive.offloads == Offloads::kChecksum);
  CHECK(served.receiveChanges == 1);
  CHECK(served.connected.empty());
  served.pass();
  CHECK(served.connected == std::vector{true});
}

TEST_CASE("a legacy driver has the short header") {
  Served served;
  served.setUp(0);
  served.start(0);
  served.enable(0);
  REQUIRE(served.connection->receive().size() == 1);
  CHECK(served.connection->receive()[0]->format.headerSize == 10);
}

TEST_CASE("a stopped ring's position is told once the pollers have passed") {
  Served served;
  const UniqueFd file = served.run();
  Driver(file).offer(5);
  TransmitQueue& queue = *served.assigned.at(0);
  served.send(state(Request::GetVringBase, 1, 0));
  CHECK(served.assigned.empty());
  CHECK_FALSE(served.receive());
  CHECK(serve(queue, 3) == 3);                      // in the pass that it was in
  served.send(state(Request::GetVringBase, 0, 0));  // waits for the first
  CHECK(served.connection->receive().size() == 1);

  served.pass();
  auto reply = served.receive();
  REQUIRE(reply);
  CHECK(reply->as<VringState>().index == 1);
  CHECK(reply->as<VringState>().value == 3);
  CHECK(served.connected == std::vector{true, false});
  CHECK(served.connection->receive().empty());
  served.pass();
  reply = served.receive();
  REQUIRE(reply);
  CHECK(reply->as<VringState>().index == 0);

  served.start(1);
  REQUIRE(served.assigned.size() == 1);
  CHECK(serve(*served.assigned[0], 8) == 2);
}

TEST_CASE("a disabled ring is acknowledged once nobody serves it, and keeps its place") {
  Served served;
  const UniqueFd file = served.run();
  Driver(file).offer(5);
  TransmitQueue* queue = served.assigned.at(0);
  CHECK(serve(*queue, 2) == 2);
  Message disable = state(Request::SetVringEnable, 1, 0);
  disable.flags |= kNeedReplyFlag;
  served.send(std::move(disable));
  CHECK(served.assigned.empty());
  CHECK_FALSE(served.receive());
  served.pass();
  CHECK(served.receive());
  CHECK(served.connected == std::vector{true});
  served.set(state(Request::SetVringEnable, 1, 1));
  REQUIRE(served.assigned == std::vector{queue});
  CHECK(serve(*queue, 8) == 3);
}

TEST_CASE("running rings move to another memory, at their positions") {
  Served served;
  const UniqueFd file = served.run();
  Driver(file).offer(5);
  CHECK(serve(*served.assigned.at(0), 2) == 2);

  const UniqueFd other = served.share();
  CHECK(served.assigned.empty());
  Driver(other).offer(5);
  served.pass();
  CHECK_FALSE(served.ended);
  REQUIRE(served.assigned.size() == 1);
  CHECK(serve(*served.assigned[0], 8) == 3);
  CHECK(served.connection->receive().size() == 1);
  CHECK(served.connected == std::vector{true});
}

TEST_CASE("the same memory, shared again, changes nothing") {
  Served served;
  const UniqueFd file = served.run();
  const std::vector<TransmitQueue*> before = served.assigned;
  served.set(memoryTable(UniqueFd(::dup(file.get())), 0x10000));
  CHECK(served.assigned == before);
}

TEST_CASE("another call eventfd takes effect at once, on the same queue") {
  Served served;
  const UniqueFd file = served.run();
  const ReceiveQueue* queue = served.connection->receive().at(0);
  const int call = queue->call;
  UniqueFd next(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  served.set(with(Request::SetVringCall, 0, UniqueFd(::dup(next.get()))));
  CHECK(served.connection->receive() == std::vector{const_cast<ReceiveQueue*>(queue)});
  CHECK(queue->call == call);
  CHECK(::eventfd_write(queue->call, 1) == 0);
  eventfd_t value = 0;
  CHECK(::eventfd_read(next.get(), &value) == 0);
}

TEST_CASE("another kick, or no call, takes a pass") {
  Served served;
  const UniqueFd file = served.run();
  served.start(1);
  CHECK(served.assigned.empty());
  served.pass();
  CHECK(served.assigned.size() == 1);
  served.send(with(Request::SetVringCall, uint64_t{0} | kVringNoDescriptor));
  CHECK(served.connection->receive().empty());
  served.pass();
  REQUIRE(served.connection->receive().size() == 1);
  CHECK(served.connection->receive()[0]->call == -1);
}

TEST_CASE("a packed ring starts on both sides, where only the driver's is told") {
  const auto positions = [](uint32_t base) {
    Served served;
    served.setUp(feature::kVersion1 | feature::kPackedRing, base);
    served.start(0);
    served.enable(0);
    return std::get<virtqueue::PackedRing>(served.connection->receive().at(0)->ring).positions();
  };
  using Position = virtqueue::Position;
  CHECK(positions(0x8000) == virtqueue::Positions{Position{0, true}, Position{0, true}});
  CHECK(positions(0x0005) == virtqueue::Positions{Position{5, false}, Position{5, false}});
  CHECK(positions(0x80038005) == virtqueue::Positions{Position{5, true}, Position{3, true}});
}

TEST_CASE("a buffer to receive in has 64 descriptors at most") {
  Served served;
  const UniqueFd file = served.setUp();
  for (uint16_t i = 0; i < 65; ++i) {
    const virtqueue::Descriptor descriptor{kBase + 0x8000, 64, 3, static_cast<uint16_t>(i + 1)};
    REQUIRE(::pwrite(file.get(), &descriptor, sizeof descriptor, 16 * i) == sizeof descriptor);
  }
  const uint16_t available = 1;
  REQUIRE(::pwrite(file.get(), &available, sizeof available, 0x1002) == sizeof available);
  served.start(0);
  served.enable(0);
  auto& ring = std::get<virtqueue::SplitRing>(served.connection->receive().at(0)->ring);
  const auto list = std::make_unique<virtqueue::BufferList>();
  CHECK(ring.read(*list, 1) == 0);
  CHECK(ring.fault().kind == virtqueue::FaultKind::kChainLength);
  CHECK(ring.fault().limit == 64);
}

TEST_CASE("a driver need not kick for buffers to receive in") {
  // The device's area of each ring, as front_end.h places it.
  const auto flagsOf = [](const UniqueFd& file, off_t ring) {
    uint32_t word = 0;
    CHECK(::pread(file.get(), &word, sizeof word, ring * 0x4000 + 0x2000) == sizeof word);
    return word;
  };
  const auto started = [](uint64_t features, uint32_t base) {
    Served served;
    UniqueFd file = served.setUp(features, base);
    for (const uint32_t ring : {0, 1}) {
      served.start(ring);
      served.enable(ring);
    }
    served.pass();
    return file;
  };
  const UniqueFd split = started(feature::kVersion1, 0),
                 packed = started(feature::kVersion1 | feature::kPackedRing, 0x8000);
  CHECK(flagsOf(split, 0) == 1);         // VIRTQ_USED_F_NO_NOTIFY
  CHECK(flagsOf(packed, 0) == 1 << 16);  // RING_EVENT_FLAGS_DISABLE
  // The queue on which it sends is a poller's.
  CHECK(flagsOf(split, 1) == 0);
  CHECK(flagsOf(packed, 1) == 0);
}

TEST_CASE("a port keeps few descriptors") {
  Served served;
  const size_t before = openDescriptors();
  const UniqueFd file = served.run();
  served.send(with(Request::SetVringErr, uint64_t{0}, eventFd()));
  // The test's file, both calls, and the kick of the ring that is waited for.
  CHECK(openDescriptors() == before + 4);
}

TEST_CASE("a fault of the other side is told in words, and ends it") {
  Served served;
  SECTION("in the protocol") {
    served.send(with(Request::SetFeatures, uint64_t{1} << 63));
    REQUIRE(served.ended);
    CHECK(served.ended->find("SET_FEATURES: features 0x8000000000000000 are not offered") == 0);
  }
  SECTION("in a message that is acknowledged") {
    served.send(with(Request::SetProtocolFeatures, protocol_feature::kReplyAck));
    served.send(with(Request::SetFeatures, uint64_t{1} << 63, kVersion | kNeedReplyFlag));
    const auto refusal = served.receive();
    REQUIRE(refusal);
    CHECK(refusal->as<uint64_t>() == 1);
    CHECK(served.ended);
  }
  SECTION("in a ring's place") {
    served.setUp(feature::kVersion1 | feature::kPackedRing, 0x8000 | 300u << 16);
    served.start(1);
    REQUIRE(served.ended);
    CHECK(*served.ended == "ring 1: position 300 in a ring of 256 entries");
  }
  served.ended.reset();
  served.front->send(encode(Request::GetFeatures, kVersion, nullptr, 0));
  served.pump();
  CHECK_FALSE(served.receive());
  CHECK_FALSE(served.ended);
}

TEST_CASE("the other side may leave at any time") {
  Served served;
  const UniqueFd file = served.run();
  SECTION("between messages") {}
  SECTION("while the pollers pass") {
    served.send(state(Request::GetVringBase, 1, 0));
  }
  served.front.reset();
  CHECK(served.connection->hungUp());
  served.pump();
  REQUIRE(served.ended);
  CHECK(served.ended->empty());
}

// Closing it takes a second: what it has sent fills the other's buffer, which nobody reads.
std::pair<UniqueFd, UniqueFd> lingeringSocket() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  UniqueFd slow(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const linger second{1, 1};
  if (::bind(listener.get(), generic, size) < 0 || ::listen(listener.get(), 1) < 0 ||
      ::getsockname(listener.get(), generic, &size) < 0 ||
      ::setsockopt(slow.get(), SOL_SOCKET, SO_LINGER, &second, sizeof second) < 0)
    throw std::runtime_error("no listener");
  if (::connect(slow.get(), generic, size) < 0 && errno != EINPROGRESS)
    throw std::runtime_error("no connection");
  UniqueFd peer(::accept(listener.get(), nullptr, nullptr));
  const std::vector<char> bytes(1 << 20);
  while (::send(slow.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0) {
  }
  return {std::move(slow), std::move(peer)};
}

TEST_CASE("closing what a worker sends doesn't keep the switch waiting") {
  Served served;
  served.setUp();
  auto [slow, peer] = lingeringSocket();
  Message call = with(Request::SetVringCall, 0, std::move(slow));
  const auto start = std::chrono::steady_clock::now();
  served.send(std::move(call));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::milliseconds(500));
  REQUIRE(served.ended);
  CHECK_THAT(*served.ended, Catch::Contains("is not an eventfd"));
  CHECK(served.closer.waiting(served.port.number) == 1);
}

TEST_CASE("an ended connection has nothing with the pollers, and hangs up only when it is told") {
  Served served;
  const UniqueFd file = served.run();
  Message stop = state(Request::GetVringBase, 0, 0);
  served.send(std::move(stop));
  served.connection->end();
  CHECK(served.assigned.empty());
  CHECK(served.connection->receive().empty());
  served.pass();
  CHECK_FALSE(served.receive());
  CHECK_FALSE(served.front->hungUp());
  served.connection->hangUp();
  CHECK(served.front->hungUp());
}
