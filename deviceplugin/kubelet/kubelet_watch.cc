#include "deviceplugin/kubelet/kubelet_watch.h"

#include <filesystem>
#include <string>
#include <utility>

#include "deviceplugin/events/inotify.h"

namespace vdpa::plugin {
namespace {

constexpr const char* kSocket = "kubelet.sock";

}  // namespace

KubeletWatch::KubeletWatch(Inotify& inotify, const std::string& directory, Handlers handlers) {
  std::filesystem::create_directories(directory);
  inotify.watch(directory, [directory, handlers = std::move(handlers)](Inotify::Change change,
                                                                       const std::string& name) {
    // Check the file itself: one kubelet's end may be read after the next one's start.
    if (name == kSocket)
      kubeletThere(directory) ? handlers.appeared() : handlers.vanished();
    else if (change == Inotify::Change::vanished)
      handlers.removed(name);
  });
}

bool kubeletThere(const std::string& directory) {
  return std::filesystem::exists(directory + "/" + kSocket);
}

}  // namespace vdpa::plugin
