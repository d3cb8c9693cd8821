// This library and rte_vhost (DPDK) on the same rings: two guests of the same memory and the same
// drivers, one for each, which get the same steps. What their drivers see must be the same.
#include <catch2/catch.hpp>
#include <rte_mbuf.h>
#include <rte_vhost.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/dpdk/start_eal.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/buffer_list.h"
#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/frame.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/datapath/virtqueue/receive.h"
#include "deviceplugin/datapath/virtqueue/ring_layout.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/datapath/virtqueue/transmit.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/virtqueue/driver.h"
#include "tests/unit/worker/front_end.h"

using namespace vdpa;
using namespace vdpa::virtqueue;
using namespace vdpa::virtqueue::test;
namespace feature = vdpa::vhost_user::feature;
using vhost_user::Request;

namespace {

using Bytes = std::vector<std::byte>;

constexpr size_t kMemory = 64 << 20;
constexpr uint32_t kRingSize = 64;
constexpr uint16_t kBurst = 32;  // rte_vhost's own
// Others are reserved in used descriptors (2.8.6), and rte_vhost leaves some.
constexpr uint16_t kCompared = flag::kAvailable | flag::kUsed;
constexpr uint32_t kLongest = 4000;  // bytes of a packet

// DPDK, once for the process.
class Dpdk {
 public:
  static rte_mempool* packets() {
    static Dpdk dpdk;
    return dpdk.packets_;
  }

 private:
  Dpdk() {
    if (dpdk::startEal("/tmp", {"--no-pci", "-m", "64", "--log-level=*:error"}) < 0)
      throw std::runtime_error("cannot start DPDK");
    packets_ = rte_pktmbuf_pool_create("packets", 256, 0, 0, RTE_PKTMBUF_HEADROOM + kLongest, 0);
    if (!packets_) throw std::runtime_error("no packets");
  }

  rte_mempool* packets_;
};

std::atomic<int> newest{-1};

// Called by rte_vhost's thread.
int onNewDevice(int vid) {
  newest = vid;
  return 0;
}
void onDestroyDevice(int) {}

const rte_vhost_device_ops kCallbacks = [] {
  rte_vhost_device_ops ops{};
  ops.new_device = onNewDevice;
  ops.destroy_device = onDestroyDevice;
  return ops;
}();

// A guest's memory that two processes could share.
class Shared {
 public:
  Shared() : file(vhost_user::test::memoryFile(kMemory)) {
    void* at = ::mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (at == MAP_FAILED) throw std::runtime_error("mmap");
    memory = static_cast<std::byte*>(at);
  }
  ~Shared() { ::munmap(memory, kMemory); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;

  UniqueFd file;
  std::byte* memory;
};

// The driver's queues, and the memory they are in.
template <typename Driver>
struct Side {
  explicit Side(bool eventIndex, uint16_t start)
      : guest(shared.memory, kMemory),
        receive(guest, kRingSize, eventIndex, start),
        transmit(guest, kRingSize, eventIndex, start) {}

  Shared shared;
  Guest guest;
  Driver receive, transmit;
};

// rte_vhost with one of them, by vhost-user.
class Peer {
 public:
  template <typename Driver>
  Peer(Side<Driver>& side, uint64_t features)
      : path_("/tmp/virtqueue-differential." + std::to_string(::getpid())) {
    Dpdk::packets();
    std::filesystem::remove(path_);
    newest = -1;
    if (rte_vhost_driver_register(path_.c_str(), 0) < 0 ||
        rte_vhost_driver_callback_register(path_.c_str(), &kCallbacks) < 0 ||
        rte_vhost_driver_start(path_.c_str()) < 0)
      throw std::runtime_error("rte_vhost does not listen");
    connect();
    send(Request::SetOwner, {});
    send(Request::SetFeatures, vhost_user::test::bytesOf(features));
    auto table = vhost_user::test::memoryTable(UniqueFd(::dup(side.shared.file.get())), kMemory,
                                               Guest::kStart);
    send(Request::SetMemTable, table.payload, table.descriptors[0].get());
    give(0, side.receive);
    give(1, side.transmit);
    for (int i = 0; newest < 0 && i < 5000; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (newest < 0) throw std::runtime_error("rte_vhost does not start the device");
    vid_ = newest;
  }
  ~Peer() {
    socket_ = UniqueFd();
    rte_vhost_driver_unregister(path_.c_str());
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  std::vector<Bytes> dequeue() {
    rte_mbuf* packets[kBurst];
    const uint16_t count = rte_vhost_dequeue_burst(vid_, 1, Dpdk::packets(), packets, kBurst);
    std::vector<Bytes> result;
    for (uint16_t i = 0; i < count; ++i) {
      const auto* data = rte_pktmbuf_mtod(packets[i], const std::byte*);
      result.emplace_back(data, data + rte_pktmbuf_data_len(packets[i]));
    }
    rte_pktmbuf_free_bulk(packets, count);
    return result;
  }

  // How many of them it had room for.
  size_t enqueue(const std::vector<Bytes>& frames) {
    std::vector<rte_mbuf*> packets;
    for (const Bytes& bytes : frames) {
      packets.push_back(rte_pktmbuf_alloc(Dpdk::packets()));
      std::memcpy(rte_pktmbuf_append(packets.back(), static_cast<uint16_t>(bytes.size())),
                  bytes.data(), bytes.size());
    }
    const auto count = static_cast<uint16_t>(packets.size());
    const size_t sent = rte_vhost_enqueue_burst(vid_, 0, packets.data(), count);
    rte_pktmbuf_free_bulk(packets.data(), count);
    return sent;
  }

  // Whether it has notified the driver of this ring since the last call.
  bool notified(uint32_t ring) {
    eventfd_t count = 0;
    return ::eventfd_read(calls_[ring].get(), &count) == 0;
  }

  // Ends the ring, and says where it stood.
  uint32_t base(uint32_t ring) {
    send(Request::GetVringBase, vhost_user::test::bytesOf(vhost_user::VringState{ring, 0}));
    struct {
      vhost_user::MessageHeader header;
      vhost_user::VringState state;
    } reply;
    if (::recv(socket_.get(), &reply, sizeof reply, MSG_WAITALL) != sizeof reply)
      throw std::runtime_error("no reply");
    return reply.state.value;
  }

 private:
  void connect() {
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
      throw std::runtime_error("connect");
  }

  void send(Request request, const Bytes& payload, int descriptor = -1) {
    Bytes bytes = vhost_user::encode(request, vhost_user::kVersion, payload.data(), payload.size());
    iovec part{bytes.data(), bytes.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (descriptor >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    if (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size()))
      throw std::runtime_error("sendmsg");
  }

  template <typename Driver>
  void give(uint32_t index, const Driver& driver) {
    using vhost_user::test::bytesOf;
    const RingSetup setup = driver.setup(Direction::kReceive);
    const uint32_t base = baseOf(setup.start, Driver::kFormat);
    send(Request::SetVringNum, bytesOf(vhost_user::VringState{index, kRingSize}));
    send(Request::SetVringBase, bytesOf(vhost_user::VringState{index, base & 0xffff}));
    const RingAddresses& at = driver.addresses();
    send(Request::SetVringAddr,
         bytesOf(vhost_user::VringAddresses{index, 0, at.descriptors, at.device, at.driver, 0}));
    calls_.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    send(Request::SetVringCall, bytesOf(uint64_t{index}), calls_.back().get());
    const UniqueFd kick = vhost_user::test::eventFd();
    send(Request::SetVringKick, bytesOf(uint64_t{index}), kick.get());
  }

  const std::string path_;
  UniqueFd socket_;
  std::vector<UniqueFd> calls_;  // by ring
  int vid_ = -1;
};

// The library with the other one.
template <typename Driver>
class Ours {
 public:
  Ours(Side<Driver>& side, const NetFormat& format)
      : format_(format),
        receive_(side.receive.connect(Direction::kReceive)),
        transmit_(side.transmit.connect(Direction::kTransmit)) {}

  std::vector<Bytes> dequeue() {
    std::vector<Bytes> result;
    const size_t count = fetch(transmit_, list_, kBurst, lease_);
    for (size_t i = 0; i < count; ++i) {
      Frame frame;
      REQUIRE(readFrame(list_, list_[i], kHeaderSize, frame));
      result.emplace_back(frame.length);
      copyFrame(frame, result.back().data());
    }
    notified_[1] |= giveBack(transmit_, list_, lease_);
    return result;
  }

  // As rte_vhost: none after the first without room.
  size_t enqueue(const std::vector<Bytes>& frames) {
    for (size_t done = 0; done < frames.size(); ++done) {
      const auto length = static_cast<uint32_t>(frames[done].size());
      Place place;
      REQUIRE(reserve(receive_, format_, {&length, 1}, {&place, 1}, list_, lease_) == 1);
      if (place.room != Place::Room::kFound) return done;
      write(list_, place, format_, {}, frameOf(frames[done].data(), length));
      notified_[0] |= giveBack(receive_, list_, lease_);
    }
    return frames.size();
  }

  uint32_t base(uint32_t ring) const {
    return baseOf(ring == 0 ? receive_.positions() : transmit_.positions(), Driver::kFormat);
  }
  bool notified(uint32_t ring) { return std::exchange(notified_[ring], false); }
  bool fault() const { return receive_.fault() || transmit_.fault(); }

 private:
  const NetFormat format_;
  typename Driver::Device receive_, transmit_;
  BufferList list_;
  Lease lease_;
  bool notified_[2] = {false, false};  // by ring
};

// The same steps for both.
template <typename Driver>
class Pair {
 public:
  Pair(bool mergeable, bool eventIndex, uint16_t start)
      : mergeable_(mergeable),
        eventIndex_(eventIndex),
        mine_(eventIndex, start),
        other_(eventIndex, start),
        ours_(mine_, {kHeaderSize, mergeable}),
        peer_(other_, feature::kVersion1 | feature::kIndirectDescriptors |
                          (Driver::kFormat == Format::kPacked ? feature::kPackedRing : 0) |
                          (mergeable ? feature::kMergeableBuffers : 0) |
                          (eventIndex ? feature::kEventIndex : 0)) {}

  void send() {
    const uint32_t length = 14 + number(kLongest - 14);
    // Most packets in one piece.
    const uint32_t layout = number(6);
    std::vector<uint32_t> pieces{kHeaderSize + length};
    if (layout == 1) pieces = {kHeaderSize, length};
    if (layout >= 2 && layout <= 3)
      for (uint32_t left = pieces[0], i = 0; i < 4 && left > 1; ++i) {
        pieces.back() = i < 3 ? 1 + number(left - 1) : left;
        left -= pieces.back();
        if (i < 3 && left > 0) pieces.push_back(left);
      }
    const bool indirect = layout == 3 || layout == 4;
    if (mine_.transmit.room() < (indirect ? 1 : pieces.size())) return;
    const auto seed = static_cast<uint8_t>(number(256));
    for (Side<Driver>* side : {&mine_, &other_}) {
      std::vector<Element> elements;
      for (const uint32_t piece : pieces) {
        elements.push_back({place(*side, sent_, piece), piece});
        side->guest.fill(elements.back().address, piece,
                         static_cast<uint8_t>(seed + elements.size()));
      }
      std::memset(side->guest.at(elements[0].address), 0, std::min(pieces[0], kHeaderSize));
      if (pieces.size() > 1 && pieces[0] < kHeaderSize)
        for (size_t i = 1; i < pieces.size(); ++i)
          std::memset(side->guest.at(elements[i].address), 0, std::min(pieces[i], kHeaderSize));
      if (indirect)
        side->transmit.addIndirect(elements);
      else
        side->transmit.add(elements);
    }
    ++sent_;
  }

  void takeSent() {
    const auto mine = ours_.dequeue(), other = peer_.dequeue();
    REQUIRE(mine.size() == other.size());
    REQUIRE(mine == other);
    compareNotifications(1);
    packets += mine.size();
  }

  void post() {
    std::vector<uint32_t> pieces{mergeable_ ? 64 + number(1000) : kHeaderSize + kLongest};
    if (number(3) == 0) pieces = {kHeaderSize, pieces[0]};
    if (mine_.receive.room() < pieces.size()) return;
    for (Side<Driver>* side : {&mine_, &other_}) {
      std::vector<Element> elements;
      for (const uint32_t piece : pieces)
        elements.push_back({place(*side, posted_, piece), piece, true});
      side->receive.add(elements);
      buffers_[side->receive.lastId()] = elements;
    }
    ++posted_;
  }

  void deliver() {
    std::vector<Bytes> frames(1 + number(12));
    for (Bytes& frame : frames) {
      frame.resize(14 + number(kLongest - 14));
      for (std::byte& byte : frame) byte = static_cast<std::byte>(number(256));
    }
    const size_t theirs = peer_.enqueue(frames);
    REQUIRE(ours_.enqueue(frames) == theirs);
    compareNotifications(0);
    packets += theirs;
  }

  void reclaim() {
    for (;;) {
      const auto mine = mine_.transmit.take(), other = other_.transmit.take();
      REQUIRE(mine.has_value() == other.has_value());
      if (!mine) break;
      REQUIRE(mine->id == other->id);
      compareFlags(mine_.transmit, other_.transmit);
    }
    for (;;) {
      const auto mine = mine_.receive.take(), other = other_.receive.take();
      REQUIRE(mine.has_value() == other.has_value());
      if (!mine) break;
      REQUIRE(mine->id == other->id);
      REQUIRE(mine->written == other->written);
      compareFlags(mine_.receive, other_.receive);
      REQUIRE(received(mine_, *mine) == received(other_, *other));
    }
  }

  // Sets the drivers' wishes for notifications.
  void wish() {
    const bool all = number(2) == 0;
    const auto count = static_cast<uint16_t>(1 + number(kRingSize));
    for (Side<Driver>* side : {&mine_, &other_})
      for (Driver* driver : {&side->receive, &side->transmit})
        if (eventIndex_)
          driver->callAfter(count);
        else if (all)
          driver->allCalls();
        else
          driver->noCalls();
  }

  void end() {
    CHECK_FALSE(ours_.fault());
    for (const uint32_t ring : {0u, 1u}) {
      const uint32_t base = ours_.base(ring);
      CHECK((base & 0xffff) == peer_.base(ring));  // it has the driver's side's alone
    }
  }

  uint32_t number(uint32_t below) { return static_cast<uint32_t>(random_() % below); }
  size_t packets = 0, notifications = 0;

 private:
  // Memory in turn, of the same addresses in both guests.
  uint64_t place(Side<Driver>& side, uint64_t, uint32_t bytes) {
    uint64_t& next = next_[&side];
    constexpr uint64_t kFrom = Guest::kStart + (8 << 20), kSize = kMemory - (8 << 20);
    if (next + bytes > kSize) next = 0;
    const uint64_t address = kFrom + next;
    next += bytes;
    return address;
  }

  void compareFlags(const Driver& mine, const Driver& other) {
    if constexpr (Driver::kFormat == Format::kPacked)
      REQUIRE((mine.lastFlags() & kCompared) == (other.lastFlags() & kCompared));
  }

  void compareNotifications(uint32_t ring) {
    const bool mine = ours_.notified(ring), other = peer_.notified(ring);
    REQUIRE(mine == other);
    notifications += mine;
  }

  Bytes received(Side<Driver>& side, const Used& used) {
    Bytes bytes;
    uint32_t left = used.written;
    for (const Element& element : buffers_.at(used.id)) {
      const auto piece = side.guest.bytes(element.address, std::min(left, element.length));
      bytes.insert(bytes.end(), piece.begin(), piece.end());
      left -= static_cast<uint32_t>(piece.size());
    }
    // Without merging, rte_vhost leaves the number of buffers as it was; it must be 1 (5.1.6.4.1).
    if (!mergeable_) bytes[10] = bytes[11] = std::byte{0};
    return bytes;
  }

  const bool mergeable_, eventIndex_;
  Side<Driver> mine_, other_;
  Ours<Driver> ours_;
  Peer peer_;
  std::mt19937 random_{4711};
  uint64_t sent_ = 0, posted_ = 0;
  std::map<Side<Driver>*, uint64_t> next_;
  std::map<uint16_t, std::vector<Element>> buffers_;
};

}  // namespace

TEMPLATE_TEST_CASE("Drivers see the same of this library and of rte_vhost", "", SplitDriver,
                   PackedDriver) {
  const bool mergeable = GENERATE(false, true), eventIndex = GENERATE(false, true);
  const uint16_t start = mergeable == eventIndex ? 0 : 65500;
  Pair<TestType> pair(mergeable, eventIndex, start);
  // Of the first buffers, this library always notifies.
  pair.send();
  pair.takeSent();
  for (uint32_t i = 0; i < kRingSize; ++i) pair.post();
  pair.deliver();
  for (int step = 0; step < 3000; ++step) {
    switch (pair.number(9)) {
      case 0:
      case 1:
        for (uint32_t i = pair.number(12); i > 0; --i) pair.send();
        break;
      case 2:
        pair.takeSent();
        break;
      case 3:
      case 4:
        for (uint32_t i = pair.number(12); i > 0; --i) pair.post();
        break;
      case 5:
        pair.deliver();
        break;
      case 6:
        pair.wish();
        break;
      default:
        pair.reclaim();
    }
  }
  CHECK(pair.packets > 500);
  CHECK(pair.notifications > 50);
  pair.end();
}
