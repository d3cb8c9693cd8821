// Reports files that appear, change or vanish in a directory.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "common/event_loop.h"
#include "common/unique_fd.h"

namespace vdpa::plugin {

class Inotify {
 public:
  enum class Change { appeared, vanished };
  using Handler = std::function<void(Change change, const std::string& name)>;

  explicit Inotify(EventLoop& loop);

  // A directory may have several watches. Throws std::system_error naming the directory. A vanished
  // directory and lost events end the loop with an error: a restarted process sees the current
  // state.
  void watch(const std::string& directory, Handler handler);

 private:
  void read();

  UniqueFd fd_;
  EventLoop::Watch watch_;
  std::multimap<int, Handler> handlers_;
  std::map<int, std::string> directories_;
};

}  // namespace vdpa::plugin
