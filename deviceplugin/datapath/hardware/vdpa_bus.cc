#include "deviceplugin/datapath/hardware/vdpa_bus.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/hardware/sysfs_file.h"
#include "deviceplugin/datapath/model/refused_error.h"

namespace vdpa::datapath {
namespace {

namespace fs = std::filesystem;

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

}  // namespace

bool VdpaBus::has(const std::string& name) const {
  return exists(device(name));
}

std::string VdpaBus::driver(const std::string& name) const {
  return linkName(device(name) + "/driver");
}

std::string VdpaBus::characterDevice(const std::string& name) const {
  const std::string node = entryStarting(device(name), "vhost-vdpa-");
  return node.empty() ? "" : dev_ + "/" + node;
}

std::string VdpaBus::virtioDevice(const std::string& name) const {
  const std::string path = virtioPath(name);
  return path.empty() ? "" : sysfs_ + "/bus/virtio/devices/" + fs::path(path).filename().string();
}

std::string VdpaBus::netdev(const std::string& name) const {
  const std::string virtio = virtioPath(name);
  return virtio.empty() ? "" : entryStarting(virtio + "/net", "");
}

// The virtio device is a child of the device that does the DMA: the parent function if there is
// one, also of a part of it on the auxiliary bus (pds_core), else the vDPA device itself (the
// simulator). If several parts have virtio devices, nothing shows which is whose.
std::string VdpaBus::virtioPath(const std::string& name) const {
  std::error_code error;
  const std::string self = fs::canonical(device(name), error);
  if (error) return "";
  const fs::path parent = fs::path(self).parent_path();
  for (const std::string& place : {self, parent.string()})
    if (const std::string virtio = entryStarting(place, "virtio"); !virtio.empty())
      return place + "/" + virtio;
  if (linkName(parent.string() + "/subsystem") != "auxiliary") return "";
  std::string found;
  for (const auto& entry : fs::directory_iterator(parent.parent_path(), error)) {
    if (!entry.path().filename().string().starts_with("virtio")) continue;
    if (!found.empty()) return "";
    found = entry.path();
  }
  return found;
}

void VdpaBus::requireClosed(const std::string& name) const {
  const std::string node = characterDevice(name);
  if (node.empty() || UniqueFd(::open(node.c_str(), O_RDWR | O_CLOEXEC)) || errno != EBUSY) return;
  throw RefusedError(
      Refusal::aborted,
      fmt::format("a program has {} of vDPA device {} open: end it (`fuser {}` on the "
                  "node names it)",
                  node, name, node));
}

void VdpaBus::unbind(const std::string& name) const {
  requireClosed(name);
  if (const std::string bound = driver(name); !bound.empty())
    writeAttribute(sysfs_ + "/bus/vdpa/drivers/" + bound + "/unbind", name);
}

void VdpaBus::bind(const std::string& name, const std::string& driver) const {
  const std::string drivers = sysfs_ + "/bus/vdpa/drivers/";
  if (!exists(drivers + driver)) {
    const std::string module = driver == "vhost_vdpa" ? "vhost-vdpa" : "virtio-vdpa";
    throw std::runtime_error(fmt::format(
        "the kernel has no driver {} on its vdpa bus: `modprobe {}` on the node", driver, module));
  }
  if (this->driver(name) == driver) return;
  unbind(name);
  writeAttribute(device(name) + "/driver_override", driver);
  if (this->driver(name) != driver) writeAttribute(drivers + driver + "/bind", name);
}

void VdpaBus::rebind(const std::string& name, const std::string& driver) const {
  unbind(name);
  bind(name, driver);
}

}  // namespace vdpa::datapath
