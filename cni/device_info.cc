#include "cni/device_info.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <utility>

#include "cni/result.h"
#include "common/errors.h"
#include "common/json.h"
#include "common/naming.h"
#include "common/unique_fd.h"

namespace vdpa::cni {
namespace {

using nlohmann::json;

constexpr size_t kMaxInfo = 64 << 10;  // bytes

// The keys that the specification requires, and the address of a PCI device.
json describe(const datapath::v1::Attachment& attachment) {
  if (hasSocket(attachment))
    return {{"type", "vhost-user"},
            {"version", "1.1.0"},
            {"vhost-user", {{"mode", "client"}, {"path", attachment.socket()}}}};
  const bool netdev = attachment.socket().empty();
  json vdpa{{"parent-device", attachment.vdpa()},
            {"driver", netdev ? "virtio" : "vhost"},
            {"path", netdev ? attachment.virtio() : attachment.socket()}};
  if (isPciAddress(attachment.device_id())) vdpa["pci-address"] = attachment.device_id();
  return {{"type", "vdpa"}, {"version", "1.1.0"}, {"vdpa", vdpa}};
}

// An empty object if the file is absent or useless.
json readInfo(int directory, const std::string& name, const std::string& path) {
  const UniqueFd file(
      ::openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file && errno == ENOENT) return json::object();
  // A link (ELOOP) and a socket (ENXIO) can't be opened; a FIFO, a device and a directory can.
  struct stat status {};
  const bool opened = file && ::fstat(file.get(), &status) == 0;
  if (opened ? !S_ISREG(status.st_mode) : errno == ELOOP || errno == ENXIO)
    throw std::runtime_error(fmt::format(
        "cannot write {}: it exists and is a link or not a regular file; remove it", path));
  if (!opened) throw systemError(errno, "cannot open {}", path);
  std::string text(kMaxInfo, '\0');
  const ssize_t count = ::read(file.get(), text.data(), text.size());
  text.resize(static_cast<size_t>(checked(static_cast<int>(count), "cannot read {}", path)));
  json found = tryParseJson(text);
  return found.is_object() ? found : json::object();
}

// As unique as the name's end, and within NAME_MAX.
std::string temporaryOf(const std::string& name) {
  return "." + name.substr(name.size() - std::min<size_t>(name.size(), NAME_MAX - 1));
}

UniqueFd openDirectory(const std::string& path) {
  return UniqueFd(checked(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                          "cannot open {}", path));
}

std::pair<std::string, std::string> split(const std::string& path) {
  const auto slash = path.rfind('/');
  return {path.substr(0, slash), path.substr(slash + 1)};
}

// Readers see the old file or the new one, and other names of the old file keep their content.
void replaceInfo(int directory, const std::string& name, const std::string& text,
                 const std::string& path) {
  const std::string temporary = temporaryOf(name);
  ::unlinkat(directory, temporary.c_str(), 0);  // of a plugin that was killed
  const UniqueFd file(checked(::openat(directory, temporary.c_str(),
                                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644),
                              "cannot create {} for {}", temporary, path));
  try {
    checked(::fchmod(file.get(), 0644), "cannot set the mode of {}", path);
    const ssize_t count = ::write(file.get(), text.data(), text.size());
    if (count >= 0 && static_cast<size_t>(count) != text.size()) errno = ENOSPC;
    if (count != static_cast<ssize_t>(text.size()))
      throw systemError(errno, "cannot write {}", path);
    checked(::renameat(directory, temporary.c_str(), directory, name.c_str()), "cannot write {}",
            path);
  } catch (...) {
    ::unlinkat(directory, temporary.c_str(), 0);
    throw;
  }
}

}  // namespace

void writeDeviceInfo(const std::string& path, const datapath::v1::Attachment& attachment) {
  const auto [parent, name] = split(path);
  std::filesystem::create_directories(parent);
  const UniqueFd directory = openDirectory(parent);
  const json ours = describe(attachment), found = readInfo(directory.get(), name, path);
  json wanted = found.value("type", json()) == ours.at("type") ? found : json::object();
  wanted.merge_patch(ours);
  if (wanted == found) return;
  replaceInfo(directory.get(), name, jsonText(wanted), path);
}

void removeUnfinishedDeviceInfo(const std::string& path) {
  const auto [parent, name] = split(path);
  if (!std::filesystem::exists(parent)) return;
  const std::string temporary = temporaryOf(name);
  if (::unlinkat(openDirectory(parent).get(), temporary.c_str(), 0) < 0 && errno != ENOENT)
    throw systemError(errno, "cannot remove {}/{}", parent, temporary);
}

}  // namespace vdpa::cni
