// Notices that the kubelet starts, ends, or has removed a plugin's socket, by the files in its
// directory: a kubelet that starts removes every socket there, then makes its own.
#pragma once

#include <functional>
#include <string>

#include "deviceplugin/events/inotify.h"

namespace vdpa::plugin {

class KubeletWatch {
 public:
  struct Handlers {  // on the loop's thread; late under load: the file may be another by then
    std::function<void()> appeared;
    std::function<void()> vanished;
    std::function<void(const std::string& name)> removed;  // any other file
  };

  // Makes `directory` if the kubelet has not yet. Throws std::system_error.
  KubeletWatch(Inotify& inotify, const std::string& directory, Handlers handlers);
};

// Whether it listens in that directory, or did when it was killed.
bool kubeletThere(const std::string& directory);

}  // namespace vdpa::plugin
