// Of Ports: who captures a port's frames.
#include <fmt/core.h>
#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/capture_ring.h"
#include "common/event_loop.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/switch/forwarding/capture.h"
#include "deviceplugin/datapath/switch/ports/ports.h"

namespace vdpa::vswitch {

struct Ports::Capturing {
  Capture capture;
  UniqueFd pipe;  // closed after `capture`, which tells the reader that nothing more comes
  EventLoop::Watch watch;
};

const Capture* Ports::captureOf(const Entry& entry) {
  return entry.capturing ? &entry.capturing->capture : nullptr;
}

void Ports::capture(const std::string& id, uint32_t snapLength, UniqueFd memory, UniqueFd pipe) {
  Entry& entry = find(id);
  if (entry.capturing)
    throw std::runtime_error(
        fmt::format("port {} is being captured already: end that vdpactl capture first", id));
  if (snapLength == 0 || snapLength > kMaxSnapLength)
    throw std::runtime_error(
        fmt::format("snap_length {}: expected 1 to {}", snapLength, kMaxSnapLength));
  const auto pollers = static_cast<unsigned>(entry.port->counters.size());
  CaptureMemory::check(memory.get(), pollers);
  // EPOLLERR, which is always watched, says that the other end is closed (pipe(7), poll(2)).
  struct stat status {};
  if (::fstat(pipe.get(), &status) < 0 || !S_ISFIFO(status.st_mode))
    throw std::runtime_error("the pipe of the capture is no pipe");
  auto capturing = std::make_shared<Capturing>(
      Capturing{Capture(memory.get(), pollers, snapLength), std::move(pipe), EventLoop::Watch()});
  capturing->watch = EventLoop::Watch(shared_.loop, capturing->pipe.get(), 0,
                                      [this, &entry](uint32_t) { endCapture(entry); });
  entry.capturing = std::move(capturing);
  publish(entry);
  log::info("the frames of port {} are being captured, up to {} bytes of each", id, snapLength);
}

void Ports::endCapture(Entry& entry) {
  const std::shared_ptr<Capturing> ending = std::exchange(entry.capturing, nullptr);
  ending->watch.reset();
  publish(entry);
  shared_.epoch.retire(ending);
  log::info("the frames of port {} are no longer captured", entry.id);
}

}  // namespace vdpa::vswitch
