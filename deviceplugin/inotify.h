// Names of files that appear, change or vanish in a directory.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "common/unique_fd.h"
#include "deviceplugin/loop.h"

namespace vdpa {

class Inotify {
 public:
  enum class Change { appeared, vanished };
  using Handler = std::function<void(Change change, const std::string& name)>;

  explicit Inotify(Loop& loop);

  // Several watches of one directory are fine. Throws std::system_error naming the directory.
  void watch(const std::string& directory, Handler handler);

 private:
  void read();

  UniqueFd fd_;
  std::multimap<int, Handler> handlers_;
};

}  // namespace vdpa
