// Notices that the kubelet starts, ends, or has removed a plugin's socket, by the files in its
// directory: a kubelet that starts removes every socket there, then makes its own.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
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

// Tells a kubelet from the one before it: each makes its socket anew, and the file's number may be
// given again.
struct KubeletSocket {
  uint64_t inode;
  int64_t made;  // nanoseconds since the epoch
  bool operator==(const KubeletSocket&) const = default;
};

// That of the kubelet that listens in that directory, or did when it was killed.
std::optional<KubeletSocket> kubeletSocket(const std::string& directory);

}  // namespace vdpa::plugin
