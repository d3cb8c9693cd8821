// vdpa-ping: tries a pod's device. One pod answers, another one measures. It needs no DPDK, no huge
// pages and no rights: any user's program that may connect to the socket can do the same.
#include <fmt/core.h>
#include <poll.h>
#include <sys/random.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>

#include "common/command_line.h"
#include "common/errors.h"
#include "common/json.h"
#include "common/mac_address.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "common/version.h"
#include "deviceplugin/guest/guest.h"
#include "deviceplugin/guest/shared_memory.h"
#include "deviceplugin/ping/answerer.h"
#include "deviceplugin/ping/measurement.h"
#include "deviceplugin/ping/message.h"
#include "deviceplugin/ping/pod_device.h"

namespace vdpa::ping {
namespace {

enum class Output { text, json };

struct Options {
  std::string runDir = "/run/vdpa", device, peer;
  unsigned pings = 1000, frameBytes = 64;  // with the FCS
  unsigned rate = 0;                       // frames per second; 0: no limit
  double seconds = 3, timeout = 10;
  Output output = Output::text;
};

std::string describe(const PodDevice& device) {
  const std::string vlan = device.vlan == 0 ? "" : fmt::format(", VLAN {}", device.vlan);
  return fmt::format("{} (network {}{})", device.id, device.network, vlan);
}

// A driver on the device, with its memory.
struct Connected {
  explicit Connected(const PodDevice& device)
      : options(driverOptions(device)), memory(sizeFor(options)) {
    memory.populate();
    guest.emplace(memory, device.socket, options);
  }

  static size_t sizeFor(const guest::GuestOptions& options) {
    constexpr size_t kRounding = 4096;
    return guest::Guest::memoryFor(options) + guest::Guest::buffersFor(options) + kRounding;
  }

  const guest::GuestOptions options;
  guest::SharedMemory memory;
  std::optional<guest::Guest> guest;
};

bool readable(int fd) {
  pollfd watched{fd, POLLIN, 0};
  return ::poll(&watched, 1, 0) > 0;
}

uint64_t randomNumber() {
  uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number)
    throw systemError(errno, "cannot get a random number");
  return number;
}

std::string rateText(double framesPerSecond) {
  if (framesPerSecond < 1e6) return fmt::format("{:.0f} frames/s", framesPerSecond);
  return fmt::format("{:.2f} million frames/s", framesPerSecond / 1e6);
}

// Of the frames' bytes, without preamble and gap.
double gigabits(double framesPerSecond, unsigned frameBytes) {
  return framesPerSecond * 8 * frameBytes / 1e9;
}

void answer(const PodDevice& device, int stop) {
  Connected connected(device);
  fmt::print("{} answers on {}\n", device.mac.text(), describe(device));
  std::fflush(stdout);
  Answerer(*connected.guest, device.mac)
      .run(stop, [](uint64_t total, uint64_t frames, Answerer::Clock::duration time) {
        const double seconds = std::chrono::duration<double>(time).count();
        fmt::print("received {}, {} in all\n", rateText(static_cast<double>(frames) / seconds),
                   total);
        std::fflush(stdout);
      });
}

MacAddress find(Measurement& measurement, const PodDevice& device, const Options& options) {
  std::optional<MacAddress> wanted;
  if (!options.peer.empty()) wanted = MacAddress::parseOrThrow(options.peer);
  const auto timeout = std::chrono::milliseconds(static_cast<int64_t>(options.timeout * 1000));
  if (const auto peer = measurement.find(wanted, timeout)) return *peer;
  throw std::runtime_error(fmt::format(
      "nobody answers {} from {} within {} s; \"vdpa-ping answer\" must run in a pod on the same "
      "network{}",
      wanted ? wanted->text() : "a broadcast", describe(device), options.timeout,
      device.backend == "software" ? ", and on the same node unless the resource has an uplink"
                                   : ""));
}

void measure(const PodDevice& device, const Options& options, const Measurement::Stop& stop) {
  Connected connected(device);
  Measurement measurement(*connected.guest, device.mac, randomNumber(), stop);
  const MacAddress peer = find(measurement, device, options);
  const RoundTrips trips = measurement.ping(peer, options.pings);
  const auto time = std::chrono::milliseconds(static_cast<int64_t>(options.seconds * 1000));
  const Rate rate = measurement.send(peer, options.frameBytes - kFcs, time, 0, {});
  const double bits = gigabits(rate.perSecond, options.frameBytes);
  if (options.output == Output::json) {
    fmt::print("{}\n", jsonText({{"peer", peer.text()},
                                 {"device", device.id},
                                 {"network", device.network},
                                 {"backend", device.backend},
                                 {"requests", trips.sent},
                                 {"answers", trips.answered},
                                 {"medianUs", trips.medianUs},
                                 {"p99Us", trips.p99Us},
                                 {"worstUs", trips.worstUs},
                                 {"frameBytes", options.frameBytes},
                                 {"sent", rate.sent},
                                 {"received", rate.received},
                                 {"receivedPerSecond", rate.perSecond},
                                 {"gigabitsPerSecond", bits}}));
    return;
  }
  fmt::print("{} answers on {}: {} of {} requests\n", peer.text(), describe(device), trips.answered,
             trips.sent);
  fmt::print("round trip: median {:.1f} us, 99 % within {:.1f} us, worst {:.1f} us\n",
             trips.medianUs, trips.p99Us, trips.worstUs);
  fmt::print("received {} of {} bytes each, {:.2f} Gbit/s; {} of {} sent\n",
             rateText(rate.perSecond), options.frameBytes, bits, rate.received, rate.sent);
}

void send(const PodDevice& device, const Options& options, const Measurement::Stop& stop) {
  Connected connected(device);
  Measurement measurement(*connected.guest, device.mac, randomNumber(), stop);
  const MacAddress peer = find(measurement, device, options);
  fmt::print("sends to {} on {}\n", peer.text(), describe(device));
  std::fflush(stdout);
  const auto progress = [&](double perSecond, uint64_t received) {
    fmt::print("the receiver counts {}, {:.2f} Gbit/s, {} in all\n", rateText(perSecond),
               gigabits(perSecond, options.frameBytes), received);
    std::fflush(stdout);
  };
  measurement.send(peer, options.frameBytes - kFcs, std::nullopt, options.rate, progress);
}

int run(int argc, char** argv) {
  Options options;
  CommandLine app(
      "Tries the device that a pod has: run \"vdpa-ping answer\" in one pod, and \"vdpa-ping "
      "measure\" in another\n"
      "one on the same network. Needs no rights, huge pages or host paths. Nothing else may use "
      "the "
      "device meanwhile.\n");
  app.version(programVersion());
  app.option("--run-dir", options.runDir, "where the pod's devices are").showDefault();
  app.option("--device", options.device, "the device, if the pod has several");
  app.subcommand("answer", "answer requests and count data, until interrupted");
  const auto sender = [&] {
    app.option("--peer", options.peer, "MAC address of the one that answers [the first one found]");
    app.option("--timeout", options.timeout, "seconds to wait for its first answer")
        .showDefault()
        .range(0.1, 3600.0);
    app.option("--size", options.frameBytes, "bytes of a frame, with the FCS")
        .showDefault()
        .range(64u, 65535u);
  };
  app.subcommand("measure", "reachability, the time of a round trip, and frames per second");
  sender();
  app.option("--count", options.pings, "requests to time").showDefault();
  app.option("--seconds", options.seconds, "to send as fast as possible")
      .showDefault()
      .range(0.5, 3600.0);
  app.choice<Output>("-o,--output", options.output, "text or json",
                     {{"text", Output::text}, {"json", Output::json}});
  app.subcommand("send", "send until interrupted; print the receiver's rate");
  sender();
  app.option("--rate", options.rate, "frames per second at most [as fast as possible]")
      .range(1u, 1000000000u);
  if (const auto status = app.parse(argc, argv)) return *status;

  const UniqueFd signals = takeStopSignals();
  const PodDevice device = findDevice(options.runDir, options.device);
  if (const unsigned most = device.mtu + kEthernetHeader + kFcs; options.frameBytes > most)
    throw std::runtime_error(fmt::format("--size {}: {} has an MTU of {}, so frames of at most {}",
                                         options.frameBytes, device.id, device.mtu, most));
  const auto stop = [&] { return readable(signals.get()); };
  if (app.got("answer")) answer(device, signals.get());
  if (app.got("measure")) measure(device, options, stop);
  if (app.got("send")) send(device, options, stop);
  return 0;
}

}  // namespace
}  // namespace vdpa::ping

int main(int argc, char** argv) {
  try {
    return vdpa::ping::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "vdpa-ping: {}\n", error.what());
    return 1;
  }
}
