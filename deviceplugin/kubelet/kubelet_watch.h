// Watches the kubelet's directory for its start, its end, and sockets that it removes: a starting
// kubelet removes every socket there, then makes its own.
#pragma once

#include <functional>
#include <string>

#include "deviceplugin/events/inotify.h"

namespace vdpa::plugin {

class KubeletWatch {
 public:
  struct Handlers {  // on the loop's thread; late under load: the file may be a newer one by then
    std::function<void()> appeared;
    std::function<void()> vanished;
    std::function<void(const std::string& name)> removed;  // any other file
  };

  // Creates `directory` if the kubelet has not yet. Throws std::system_error.
  KubeletWatch(Inotify& inotify, const std::string& directory, Handlers handlers);
};

// Whether the kubelet's socket file exists; a killed kubelet leaves it behind.
bool kubeletThere(const std::string& directory);

}  // namespace vdpa::plugin
