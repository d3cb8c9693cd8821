#include "deviceplugin/kubelet/kubelet_watch.h"

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "deviceplugin/events/inotify.h"

namespace vdpa::plugin {
namespace {

constexpr const char* kSocket = "kubelet.sock";

}  // namespace

KubeletWatch::KubeletWatch(Inotify& inotify, const std::string& directory, Handlers handlers) {
  std::filesystem::create_directories(directory);
  inotify.watch(directory,
                [directory, handlers = std::move(handlers)](Inotify::Change change,
                                                            const std::string& name) {
                  // By what is there now: the end of one kubelet may be read after the next began.
                  if (name == kSocket)
                    kubeletSocket(directory) ? handlers.appeared() : handlers.vanished();
                  else if (change == Inotify::Change::vanished)
                    handlers.removed(name);
                });
}

std::optional<KubeletSocket> kubeletSocket(const std::string& directory) {
  struct stat status {};
  if (::stat((directory + "/" + kSocket).c_str(), &status) != 0) return std::nullopt;
  constexpr int64_t kNanoseconds = 1'000'000'000;
  return KubeletSocket{status.st_ino, status.st_mtim.tv_sec * kNanoseconds + status.st_mtim.tv_nsec};
}

}  // namespace vdpa::plugin
