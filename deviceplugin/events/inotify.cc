#include "deviceplugin/events/inotify.h"

#include <fmt/core.h>
#include <sys/epoll.h>
#include <sys/inotify.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/event_loop.h"

namespace vdpa::plugin {

Inotify::Inotify(EventLoop& loop)
    : fd_(checked(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "cannot create an inotify instance")),
      watch_(loop, fd_.get(), EPOLLIN, [this](uint32_t) { read(); }) {}

void Inotify::watch(const std::string& directory, Handler handler) {
  const int watch = checked(
      ::inotify_add_watch(fd_.get(), directory.c_str(),
                          IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM),
      "cannot watch the directory {}", directory);
  handlers_.emplace(watch, std::move(handler));
  directories_[watch] = directory;
}

void Inotify::read() {
  alignas(inotify_event) char buffer[16384];
  for (;;) {
    const ssize_t count = ::read(fd_.get(), buffer, sizeof buffer);
    if (count <= 0) return;
    for (ssize_t offset = 0; offset < count;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + offset);
      offset += static_cast<ssize_t>(sizeof *event) + event->len;
      if (event->mask & IN_Q_OVERFLOW)
        throw std::runtime_error("inotify events were lost: the kernel's queue overflowed");
      if (event->mask & IN_IGNORED)
        throw std::runtime_error(fmt::format("the directory {} is gone", directories_[event->wd]));
      const std::string name = event->len > 0 ? event->name : "";
      const Change change =
          event->mask & (IN_DELETE | IN_MOVED_FROM) ? Change::vanished : Change::appeared;
      const auto [first, last] = handlers_.equal_range(event->wd);
      for (auto handler = first; handler != last; ++handler) handler->second(change, name);
    }
  }
}

}  // namespace vdpa::plugin
