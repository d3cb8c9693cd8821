// The current state of a device on the vdpa bus. Names are stable, numbers of character devices are
// not: so everything is looked up when it is needed.
//
// Source: drivers/vdpa/vdpa.c, drivers/vhost/vdpa.c and Documentation/ABI/testing/sysfs-bus-vdpa in
// Linux 6.12.
#pragma once

#include <string>

namespace vdpa::datapath {

class VdpaBus {
 public:
  // `sysfs` is /sys, `dev` is /dev.
  VdpaBus(std::string sysfs, std::string dev) : sysfs_(std::move(sysfs)), dev_(std::move(dev)) {}

  bool has(const std::string& name) const;
  // vhost_vdpa, virtio_vdpa; empty: none is bound.
  std::string driver(const std::string& name) const;
  // "/dev/vhost-vdpa-3"; empty: there is none.
  std::string characterDevice(const std::string& name) const;
  // The netdev of a device under virtio_vdpa, in the namespace that sysfs shows; empty: none.
  std::string netdev(const std::string& name) const;
  // "/sys/bus/virtio/devices/virtio5", under virtio_vdpa; empty: none.
  std::string virtioDevice(const std::string& name) const;

  // Throws RefusedError (aborted) if a program has the character device open: removing or rebinding
  // the device would wait in the kernel for that program's end, holding the lock that all of the
  // node's vDPA devices need.
  void requireClosed(const std::string& name) const;

  // Binds the device to this bus driver, and to no other from now on. Throws std::runtime_error
  // that says what is missing, or as requireClosed().
  void bind(const std::string& name, const std::string& driver) const;
  // Takes the device from its driver and binds it to this one, even if that is the same. Throws as
  // bind().
  void rebind(const std::string& name, const std::string& driver) const;

 private:
  std::string virtioPath(const std::string& name) const;
  void unbind(const std::string& name) const;
  std::string device(const std::string& name) const { return sysfs_ + "/bus/vdpa/devices/" + name; }

  std::string sysfs_;
  std::string dev_;
};

}  // namespace vdpa::datapath
