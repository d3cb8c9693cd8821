// See the header.
#include "deviceplugin/datapath/vdpa_bus.h"

#include <fmt/format.h>

#include <filesystem>
#include <stdexcept>

#include "deviceplugin/datapath/sysfs_file.h"

namespace vdpa {
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
// one, else the vDPA device itself (the simulator).
std::string VdpaBus::virtioPath(const std::string& name) const {
  std::error_code error;
  const std::string self = fs::canonical(device(name), error);
  if (error) return "";
  for (const std::string& parent : {self, fs::path(self).parent_path().string()})
    if (const std::string virtio = entryStarting(parent, "virtio"); !virtio.empty())
      return parent + "/" + virtio;
  return "";
}

void VdpaBus::bind(const std::string& name, const std::string& driver) const {
  const std::string drivers = sysfs_ + "/bus/vdpa/drivers/";
  if (!exists(drivers + driver)) {
    const std::string module = driver == "vhost_vdpa" ? "vhost-vdpa" : "virtio-vdpa";
    throw std::runtime_error(fmt::format(
        "the kernel has no driver {} on its vdpa bus: `modprobe {}` on the node", driver, module));
  }
  const std::string bound = this->driver(name);
  if (bound == driver) return;
  writeAttribute(device(name) + "/driver_override", driver);
  if (!bound.empty()) writeAttribute(drivers + bound + "/unbind", name);
  if (this->driver(name) != driver) writeAttribute(drivers + driver + "/bind", name);
}

void VdpaBus::rebind(const std::string& name, const std::string& driver) const {
  if (const std::string bound = this->driver(name); !bound.empty())
    writeAttribute(sysfs_ + "/bus/vdpa/drivers/" + bound + "/unbind", name);
  bind(name, driver);
}

}  // namespace vdpa
