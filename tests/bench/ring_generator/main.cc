// ring-generator: guests of a vhost-user back-end, all in one thread, with a ring driver of their
// own that is faster than any switch. `traffic` measures, `idle` is there beside others, `attack`
// does what hostile guests may do. Prints lines of JSON; "begin" and "end" enclose the time that
// counts, so that others can read the switch's counters at the same moments.
#include <fmt/core.h>
#include <sched.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/command_line.h"
#include "common/errors.h"
#include "common/json.h"
#include "common/resource_limit.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/net_header.h"
#include "deviceplugin/guest/guest.h"
#include "tests/bench/ring_generator/attack.h"
#include "tests/bench/ring_generator/clock.h"
#include "tests/bench/ring_generator/frames.h"
#include "tests/bench/ring_generator/traffic.h"

namespace {

using namespace vdpa::bench;
using namespace vdpa::guest;
namespace feature = vdpa::vhost_user::feature;

constexpr uint32_t kFcs = 4;          // bytes; on a wire, not in memory
constexpr uint32_t kSmallRing = 64;   // of guests that rest
constexpr uint32_t kPairRing = 1024;  // of guests that must always have frames to send

struct Options {
  std::vector<std::string> sockets;
  uint32_t guests = 2, idle = 0, first = 0, size = 64, receive = 0, pieces = 1, ring = 256;
  bool packed = false, inOrder = false, eventIndex = false, indirect = false, mergeable = false,
       offloads = false, calls = false, pair = false;
  int cpu = -1;
  double seconds = 1, warmUp = 0.3;
  TrafficOptions traffic;
  AttackOptions attack;
  std::optional<uint16_t> tooShort;
};

void print(const nlohmann::json& json) {
  fmt::print("{}\n", vdpa::jsonText(json));
  std::fflush(stdout);
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  vdpa::checked(::sched_setaffinity(0, sizeof set, &set), "cannot run on core {}", cpu);
}

// As many as there are guests: "{}" in the first stands for their numbers.
std::vector<std::string> socketsOf(const Options& options) {
  const uint32_t count = (options.pair ? 2 : 0) + options.guests + options.idle;
  const size_t place = options.sockets.front().find("{}");
  std::vector<std::string> sockets = options.sockets;
  if (place != std::string::npos) {
    sockets.clear();
    for (uint32_t i = 0; i < count; ++i)
      sockets.push_back(std::string(options.sockets.front())
                            .replace(place, 2, std::to_string(options.first + i)));
  }
  if (sockets.size() < count)
    throw std::invalid_argument(fmt::format("{} sockets for {} guests", sockets.size(), count));
  return sockets;
}

GuestOptions guestOptions(const Options& options) {
  GuestOptions guest;
  const auto with = [&](bool wanted, uint64_t bits) {
    if (wanted) guest.features |= bits;
  };
  with(options.inOrder, vdpa::vhost_user::bit(35));
  with(options.eventIndex, feature::kEventIndex);
  with(options.mergeable, feature::kMergeableBuffers);
  with(options.offloads, feature::kChecksum | feature::kGuestChecksum | feature::kHostTso4 |
                             feature::kGuestTso4 | feature::kHostTso6 | feature::kGuestTso6);
  guest.packed = options.packed;
  guest.ringSize = options.ring;
  guest.transmitBytes = options.size - kFcs;
  guest.receiveBytes =
      options.receive != 0 ? options.receive : vdpa::virtqueue::kHeaderSize + options.size - kFcs;
  guest.pieces = options.pieces;
  guest.indirect = options.indirect;
  guest.calls = options.calls;
  return guest;
}

GuestOptions simple(GuestOptions options, uint32_t ring) {
  options.ringSize = ring;
  options.pieces = 1;
  options.indirect = options.calls = false;
  return options;
}

// Memory for guests of these options.
size_t memoryFor(const GuestOptions& options, uint32_t guests, bool common) {
  constexpr size_t kRounding = 4096;
  return (Guest::memoryFor(options) + kRounding) * guests +
         (Guest::buffersFor(options) + kRounding) * (common ? 1 : guests) + kRounding;
}

using GuestList = std::vector<std::unique_ptr<Guest>>;

// Guests on the first sockets, which are taken off the list.
GuestList connect(SharedMemory& memory, std::span<const std::string>& sockets, uint32_t count,
                  const GuestOptions& options, const CommonParts* common = nullptr) {
  GuestList guests;
  for (uint32_t i = 0; i < count; ++i)
    guests.push_back(std::make_unique<Guest>(memory, sockets[i], options, common));
  sockets = sockets.subspan(count);
  return guests;
}

void mark(const char* what, double frequency) {
  print({{"mark", what}, {"hz", frequency}});
}

nlohmann::json report(const TrafficResult& result, const Traffic& traffic, const Options& options) {
  nlohmann::json json = {
      {"seconds", result.seconds},           {"sent", result.sent},
      {"received", result.received},         {"received_bytes", result.receivedBytes},
      {"misdelivered", result.misdelivered}, {"busy", result.busy}};
  if (options.traffic.check) {
    json["damaged"] = result.damaged;
    json["disordered"] = result.disordered;
  }
  if (options.traffic.rate > 0) {
    const auto us = [&](double share) {
      return static_cast<double>(traffic.latencies().quantile(share)) * 1e6 / traffic.frequency();
    };
    json["p50_us"] = us(0.5);
    json["p90_us"] = us(0.9);
    json["p99_us"] = us(0.99);
  }
  return json;
}

void runTraffic(const Options& options) {
  const GuestOptions active = guestOptions(options), resting = simple(active, kSmallRing);
  SharedMemory memory(memoryFor(active, options.guests, false) +
                      memoryFor(resting, options.idle, true));
  const auto sockets = socketsOf(options);
  std::span<const std::string> left(sockets);
  const CommonParts common(memory, resting);
  const GuestList guests = connect(memory, left, options.guests, active);
  const GuestList idle = connect(memory, left, options.idle, resting, &common);

  Traffic traffic(guests, FrameFormat(options.size - kFcs, options.offloads), options.traffic);
  traffic.learn();
  TrafficResult before = traffic.run(options.warmUp);
  traffic.drain(before, 0.01);
  traffic.reset();
  mark("begin", traffic.frequency());
  TrafficResult result = traffic.run(options.seconds);
  mark("end", traffic.frequency());
  const uint64_t inTime = result.received;
  if (options.traffic.rate > 0) traffic.drain(result, 0.05);
  nlohmann::json json = report(result, traffic, options);
  json["pps"] = static_cast<double>(inTime) / result.seconds;
  json["features"] = fmt::format("{:#x}", guests[0]->features());
  print(json);
}

void runIdle(const Options& options) {
  const GuestOptions resting = simple(guestOptions(options), kSmallRing);
  const uint32_t count = options.guests + options.idle;
  SharedMemory memory(memoryFor(resting, count, true));
  const auto sockets = socketsOf(options);
  std::span<const std::string> left(sockets);
  const CommonParts common(memory, resting);
  const GuestList guests = connect(memory, left, count, resting, &common);
  print({{"connected", count}});
  for (std::string line; std::getline(std::cin, line);) continue;
}

// In one thread with a pair that behaves, so that both sides' rings are served equally.
void runAttack(const Options& options) {
  const GuestOptions hostile = guestOptions(options), resting = simple(hostile, kSmallRing);
  GuestOptions pair = simple(hostile, kPairRing);
  // Between two looks of this thread the switch delivers at most what one ring held and what filled
  // it once more, and a few frames to everybody: whatever the pair loses, the switch has lost.
  pair.receiveRing = 4 * kPairRing;
  const uint32_t pairs = options.pair ? 2 : 0;
  SharedMemory memory(memoryFor(pair, pairs, false) + memoryFor(resting, options.idle, false));
  SharedMemory hostileMemory(memoryFor(hostile, options.guests, false));
  const auto sockets = socketsOf(options);
  std::span<const std::string> left(sockets);
  const GuestList two = connect(memory, left, pairs, pair);
  GuestOptions target = hostile;
  target.pieces = 1;
  target.indirect = false;
  target.receiveBytes = options.tooShort.value_or(hostile.receiveBytes);
  GuestList attacking = connect(hostileMemory, left, 1, target);
  for (auto& guest : connect(hostileMemory, left, options.guests - 1, hostile))
    attacking.push_back(std::move(guest));
  const GuestList bystanders = connect(memory, left, options.idle, resting);

  AttackOptions attack = options.attack;
  attack.first = options.first + pairs;
  attack.frameBytes = options.size - kFcs;
  Attackers attackers(attacking, hostileMemory, attack);
  size_t turn = 0;
  const auto pass = [&] {
    attackers.pass();
    if (!bystanders.empty()) bystanders[turn++ % bystanders.size()]->discard();
  };
  nlohmann::json json;
  double frequency = measureFrequency();
  if (options.pair) {
    TrafficOptions both = options.traffic;
    both.burst = kPairRing;
    Traffic traffic(two, FrameFormat(options.size - kFcs, false), both);
    traffic.learn();
    TrafficResult before = traffic.run(options.warmUp, pass);
    traffic.drain(before, 0.05, pass);
    traffic.reset();
    mark("begin", frequency);
    TrafficResult result = traffic.run(options.seconds, pass);
    mark("end", frequency);
    if (both.rate > 0) traffic.drain(result, 0.05, pass);
    json["pair"] = report(result, traffic, options);
  } else {
    mark("begin", frequency);
    const auto wanted = static_cast<uint64_t>(options.seconds * frequency);
    for (const uint64_t begin = cycles(); cycles() - begin < wanted;) pass();
    mark("end", frequency);
  }
  json["sent"] = attackers.sent();
  json["extras"] = attackers.extras();
  json["ended"] = attackers.ended();
  print(json);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  vdpa::CommandLine app("Guests of a vhost-user switch that send, receive, rest or attack.\n");
  app.option("--socket", options.sockets,
             "the guests' sockets, active ones first; or one with {} for each guest's number")
      .required();
  app.option("--guests", options.guests, "active guests").showDefault();
  app.option("--idle", options.idle, "guests that are only connected, with shared buffers")
      .showDefault();
  app.option("--first", options.first,
             "the first guest's number: 02:00:00:00 and it are its address")
      .showDefault();
  app.option("--size", options.size, "of a frame in bytes, with the FCS")
      .showDefault()
      .range(64u, 65549u);
  app.option("--receive", options.receive, "bytes of a receive buffer [header and frame]");
  app.option("--ring", options.ring, "entries of each ring").showDefault().range(2u, 32768u);
  app.option("--pieces", options.pieces, "descriptors of each frame to send")
      .showDefault()
      .range(1u, 32768u);
  app.option("--cpu", options.cpu, "the core to run on");
  app.option("--seconds", options.seconds, "of the time that counts").showDefault();
  app.flag("--packed", options.packed, "packed rings");
  app.flag("--in-order", options.inOrder, "agree on IN_ORDER if it is offered");
  app.flag("--event-index", options.eventIndex, "agree on EVENT_IDX if it is offered");
  app.flag("--indirect", options.indirect, "put the pieces of a frame into an indirect table");
  app.flag("--mergeable", options.mergeable, "agree on MRG_RXBUF if it is offered");
  app.flag("--offloads", options.offloads,
           "agree on checksums and TSO as far as they are offered, and send TCP segments that need "
           "both");
  app.flag("--calls", options.calls, "ask the switch for notifications");

  app.subcommand("traffic", "send and receive; measure packets per second, or latency at a rate");
  app.choice<Pattern>("--pattern", options.traffic.pattern, "who sends to whom [one]",
                      {{"one", Pattern::kOne},
                       {"both", Pattern::kBoth},
                       {"scattered", Pattern::kScattered},
                       {"all", Pattern::kAll},
                       {"to-one", Pattern::kToOne},
                       {"broadcast", Pattern::kBroadcast}});
  app.option("--rate", options.traffic.rate, "frames per second of all together [unlimited]");
  app.option("--burst", options.traffic.burst, "frames that are offered at once").showDefault();
  app.option("--flows", options.traffic.flows, "different source ports")
      .showDefault()
      .range(1u, 65536u);
  app.option("--warm-up", options.warmUp, "seconds of traffic before it counts").showDefault();
  app.flag("--check", options.traffic.check, "check every byte and the order of what arrives");

  app.subcommand("idle", "connect, and rest until the standard input ends");

  app.subcommand("attack",
                 "misbehave: all guests but the first send to the first, as the kind says");
  app.choice<Attack>("--kind", options.attack.kind, "how [flood]",
                     {{"none", Attack::kNone},
                      {"flood", Attack::kFlood},
                      {"deaf", Attack::kDeaf},
                      {"broadcast", Attack::kBroadcast},
                      {"unknown", Attack::kUnknown},
                      {"addresses", Attack::kAddresses},
                      {"kicks", Attack::kKicks},
                      {"watchers", Attack::kWatchers},
                      {"holes", Attack::kHoles}});
  app.option("--watchers", options.attack.watchers, "of an eventfd").showDefault();
  app.option("--too-short", options.tooShort, "bytes of each of the first guest's receive buffers");
  app.flag("--pair", options.pair,
           "two more guests, before the others: the first sends to the second meanwhile");
  app.option("--rate", options.traffic.rate, "frames per second of that pair [unlimited]");
  app.option("--warm-up", options.warmUp, "seconds before it counts").showDefault();
  if (const auto status = app.parse(argc, argv)) return *status;

  try {
    options.traffic.first = options.first;
    vdpa::raiseDescriptorLimit();
    if (options.cpu >= 0) pin(options.cpu);
    if (app.got("traffic")) runTraffic(options);
    if (app.got("idle")) runIdle(options);
    if (app.got("attack")) runAttack(options);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "ring-generator: {}\n", error.what());
    return 1;
  }
}
