// vdpactl capture. The switch's pollers write the frames into memory of ours, and this reads them
// there: common/capture_ring.h. It asks the switch itself, since descriptors go with the request;
// the switch ends the capture when the other end of our pipe is closed, for whatever reason.
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "common/capture_ring.h"
#include "common/control_channel.h"
#include "common/control_stream.h"
#include "common/errors.h"
#include "common/event_thread.h"
#include "common/naming.h"
#include "common/paths.h"
#include "common/stop_signals.h"
#include "common/unique_fd.h"
#include "common/version.h"
#include "control.pb.h"
#include "datapath.pb.h"
#include "deviceplugin/ctl/capture_output.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"
#include "deviceplugin/ctl/pcapng.h"

namespace vdpa::ctl {
namespace {

constexpr size_t kBatch = 1 << 20;  // bytes that are written at once
constexpr int kPause = 2;           // ms between two looks at empty rings, which hold 65,536 frames

// The attachment of a port of the software switch.
datapath::v1::Attachment portOf(const datapath::v1::ListResponse& list, const std::string& device) {
  for (const auto& attachment : list.attachments()) {
    if (attachment.device_id() != device) continue;
    if (attachment.owner().container_id().empty())
      throw std::runtime_error(fmt::format("device {} is {}", device, attachment.state()));
    if (attachment.backend() == "software") return attachment;
    throw std::runtime_error(fmt::format(
        "device {} has the backend {}: its packets pass through its hardware, and no program of "
        "this node sees them; only ports of the software switch can be captured",
        device, attachment.backend()));
  }
  for (const auto& known : list.devices())
    if (known.id() == device)
      throw std::runtime_error(
          fmt::format("device {} is not attached; see vdpactl attachments", device));
  throw std::runtime_error(fmt::format("this node has no device {}; see vdpactl devices", device));
}

// A running capture, as the switch and we share it.
struct Session {
  UniqueFd memory;
  UniqueFd pipe;  // hangs up after the last frame
  unsigned rings = 0;
  std::vector<std::string> dropReasons;
};

Session start(const std::string& control, const std::string& resource, const std::string& device,
              uint32_t snapLength) {
  EventThread thread;
  std::optional<ControlClient> client;
  thread.run([&] {
    client.emplace(thread.loop(), control, ControlClient::Peer::found,
                   ControlClient::EventHandler(), ControlClient::ClosedHandler());
  });
  // The client ends on its thread, however this ends.
  struct End {
    EventThread& thread;
    std::optional<ControlClient>& client;
    ~End() {
      thread.run([&] { client.reset(); });
    }
  } const end{thread, client};

  const auto hello = thread.wait(client->call(helloRequest())).hello();
  if (!hello.frames())
    throw std::runtime_error(
        fmt::format("the switch of {} is vdpa-switch {}, which can't capture: an updated "
                    "vdpa-datapath replaces it; see vdpactl attachments",
                    resource, hello.version()));
  Session session;
  session.rings = std::max(1u, static_cast<unsigned>(hello.vswitch().cores_size()));
  session.memory = CaptureMemory::make(session.rings);
  int ends[2];
  checked(::pipe2(ends, O_CLOEXEC), "cannot make a pipe");
  session.pipe = UniqueFd(ends[0]);
  UniqueFd writing(ends[1]);

  control::Request request;
  Descriptors descriptors;
  auto& capture = *request.mutable_capture();
  capture.set_port(device);
  capture.set_snap_length(snapLength);
  *capture.mutable_memory() =
      descriptors.add(UniqueFd(checked(::dup(session.memory.get()), "cannot copy a descriptor")));
  *capture.mutable_pipe() = descriptors.add(std::move(writing));
  const auto answer = thread.wait(
      client->call(std::move(request), std::chrono::seconds(5), std::move(descriptors)));
  const auto& reasons = answer.capturing().drop_reasons();
  session.dropReasons.assign(reasons.begin(), reasons.end());
  return session;
}

// Times of the pollers' clock, the processor's time-stamp counter, as nanoseconds since 1970.
class Clock {
 public:
  Clock() : startCycles_(__rdtsc()), start_(read(CLOCK_MONOTONIC_RAW)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    look();
  }

  // Relates the clocks: the times of frames that are seen next are near to now.
  void look() {
    cycles_ = __rdtsc();
    now_ = read(CLOCK_REALTIME);
    nanosecondsPerCycle_ = static_cast<double>(read(CLOCK_MONOTONIC_RAW) - start_) /
                           static_cast<double>(cycles_ - startCycles_);
  }
  uint64_t now() const { return now_; }
  uint64_t timeOf(uint64_t cycles) const {
    const auto age = static_cast<double>(static_cast<int64_t>(cycles_ - cycles));
    const double nanoseconds = std::clamp(age * nanosecondsPerCycle_, -kHour, kHour);
    return now_ - static_cast<uint64_t>(static_cast<int64_t>(nanoseconds));
  }

 private:
  static constexpr double kHour = 3600e9;  // ns: the time of a frame is wrong, if it is as far away

  static uint64_t read(clockid_t clock) {
    timespec time{};
    ::clock_gettime(clock, &time);
    return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
  }

  const uint64_t startCycles_, start_;
  uint64_t cycles_ = 0, now_ = 0;
  double nanosecondsPerCycle_ = 0;
};

bool hungUp(int fd) {
  pollfd entry{fd, 0, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR)) != 0;
}

// The descriptors whose hang-up tells that whoever has started us is gone: those that have not hung
// up from the beginning, as the standard input of a job in the background may have.
std::vector<int> callers() {
  std::vector<int> found;
  for (const int fd : {STDIN_FILENO, STDERR_FILENO})
    if (!hungUp(fd)) found.push_back(fd);
  return found;
}

class Capturing {
 public:
  Capturing(Session session, const CaptureRequest& request, const std::string& description,
            CaptureOutput& output, std::vector<int> callers, int stop)
      : session_(std::move(session)),
        most_(request.count),
        mostBytes_(output.isStandard() ? UINT64_MAX : request.mostMiB << 20),
        callers_(std::move(callers)),
        output_(output),
        stop_(stop) {
    if (request.seconds) deadline_ = SteadyClock::now() + *request.seconds;
    for (unsigned ring = 0; ring < session_.rings; ++ring)
      readers_.emplace_back(session_.memory.get(), ring);
    for (const auto& reason : session_.dropReasons) comments_.push_back("dropped: " + reason);
    blocks_.section(fmt::format("vdpactl {}", programVersion()));
    blocks_.interface(request.device, description, request.snapLength);
  }

  enum class End { kRequested, kReaderGone, kPortGone, kCallerGone, kFull };
  End run() {
    const End end = follow();
    session_.pipe.reset();  // the switch ends the capture
    return end == End::kReaderGone ? end : finish(end);
  }
  uint64_t captured() const { return captured_; }
  size_t unwritten() const { return blocks_.bytes.size(); }
  uint64_t dropped() const {
    uint64_t sum = 0;
    for (const auto& reader : readers_) sum += reader.dropped();
    return sum;
  }

 private:
  // The switch writes nothing to the pipe.
  bool ended() const {
    pollfd entry{session_.pipe.get(), POLLIN, 0};
    return ::poll(&entry, 1, 0) > 0;
  }
  // Until the time is over; -1: there is no limit.
  int timeLeft() const {
    if (!deadline_) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - SteadyClock::now());
    return static_cast<int>(std::clamp<int64_t>(left.count(), 0, INT_MAX));
  }
  // Whether a signal has come since the last call.
  bool stopped() const {
    signalfd_siginfo signal;
    return ::read(stop_, &signal, sizeof signal) > 0;
  }
  // For the output, and for a signal. False: the output's reader is gone.
  bool wait(short events, int milliseconds) const {
    pollfd entries[] = {{output_.fd(), events, 0}, {stop_, POLLIN, 0}};
    return ::poll(entries, 2, milliseconds) <= 0 || (entries[0].revents & POLLERR) == 0;
  }

  // Until there is a reason to end.
  End follow() {
    for (;;) {
      if (ended()) return End::kPortGone;
      if (stopped() || enough() || timeLeft() == 0) return End::kRequested;
      if (output_.size() + blocks_.bytes.size() >= mostBytes_) return End::kFull;
      if (std::any_of(callers_.begin(), callers_.end(), hungUp)) return End::kCallerGone;
      const bool took = take();
      if (!output_.write(blocks_.bytes)) return End::kReaderGone;
      const bool blocked = !blocks_.bytes.empty();
      if (blocked ? !wait(POLLOUT, timeLeft()) : !took && !wait(0, kPause)) return End::kReaderGone;
    }
  }

  // Writes what is left. Another signal ends it at once, if the output's reader does not read.
  End finish(End end) {
    for (bool more = true; more || !blocks_.bytes.empty();) {
      if (more && !take()) {
        blocks_.statistics(clock_.now(), captured_ + dropped(), dropped());
        more = false;
      }
      if (!output_.write(blocks_.bytes)) return End::kReaderGone;
      if (blocks_.bytes.empty()) continue;
      if (!wait(POLLOUT, -1)) return End::kReaderGone;
      if (stopped()) break;
    }
    return end;
  }

  bool enough() const { return most_ && captured_ == *most_; }

  // Frames of the rings, by their times, up to a batch. False: there are none, or enough.
  bool take() {
    if (blocks_.bytes.size() >= kBatch) return true;
    clock_.look();
    const uint64_t before = captured_;
    while (blocks_.bytes.size() < kBatch && !enough()) {
      CaptureReader* first = nullptr;
      uint64_t time = 0;
      for (auto& reader : readers_) {
        const CaptureRecord* record = reader.peek();
        if (!record || (first && record->time >= time)) continue;
        first = &reader;
        time = record->time;
      }
      if (!first) break;
      add(*first->peek(), first->bytes());
      first->next();
    }
    for (auto& reader : readers_) reader.release();
    return captured_ > before;
  }

  void add(const CaptureRecord& record, const std::byte* bytes) {
    Pcapng::Frame frame{
        clock_.timeOf(record.time), record.received != 0, record.length, {bytes, record.captured}};
    if (record.drop > 0)
      frame.comment = record.drop <= comments_.size()
                          ? std::string_view(comments_[record.drop - 1u])
                          : "dropped, for a reason that this vdpactl does not know";
    blocks_.frame(frame);
    ++captured_;
  }

  using SteadyClock = std::chrono::steady_clock;

  Session session_;
  const std::optional<uint64_t> most_;
  const uint64_t mostBytes_;
  std::optional<SteadyClock::time_point> deadline_;
  const std::vector<int> callers_;  // of a file
  CaptureOutput& output_;
  const int stop_;
  std::deque<CaptureReader> readers_;
  std::vector<std::string> comments_;
  Pcapng blocks_;
  Clock clock_;
  uint64_t captured_ = 0;
};

}  // namespace

void capture(const Options& options, const CaptureRequest& request) {
  const UniqueFd stop = takeStopSignals();
  auto watched = callers();
  const auto attachment = portOf(DatapathClient(options.datapathSocket).list(), request.device);
  CaptureOutput output(request.file);
  if (output.isStandard()) watched.clear();  // its reader tells
  const Paths paths(std::filesystem::path(options.datapathSocket).parent_path(), "");
  const std::string control = paths.switchControl(fileName(attachment.resource()));
  requireSocket(control, "vdpa-switch of " + attachment.resource());
  Capturing capturing(
      start(control, attachment.resource(), request.device, request.snapLength), request,
      fmt::format("{} of {}", attachment.owner().interface(), podOf(attachment.owner())), output,
      std::move(watched), stop.get());
  const auto end = capturing.run();
  if (end == Capturing::End::kCallerGone) return;  // nobody is there to read more
  fmt::print(stderr, "vdpactl: {} frames captured, {} dropped by the capture\n",
             capturing.captured(), capturing.dropped());
  if (end == Capturing::End::kFull)
    fmt::print(stderr, "vdpactl: ended, as the file has {} MiB (--max-size)\n", request.mostMiB);
  if (end != Capturing::End::kReaderGone && capturing.unwritten() > 0)
    throw std::runtime_error(
        fmt::format("the last {} bytes are not written: nobody reads them", capturing.unwritten()));
  if (end == Capturing::End::kPortGone)
    throw std::runtime_error(fmt::format(
        "the capture has ended: {} was detached, or its switch was restarted", request.device));
}

}  // namespace vdpa::ctl
