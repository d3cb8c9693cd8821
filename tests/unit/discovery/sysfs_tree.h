// A generated sysfs for tests, in a directory, with the parts that discovery reads. It is no copy
// of a machine. The links between a PF and its VFs are those of a listing that the hwloc project
// has ("ll /sys/bus/pci/devices/0000:04:00.0/" in "identify SR-IOV virtual functions on Linux");
// functions, the vdpa bus, slices and netdevs follow the kernel's documentation and the test
// machine's virtio and igb NICs (tests/vm/inside uses the real ones). No public listing of a vDPA
// device below a VF of mlx5, ifcvf or another vendor was found.
#pragma once

#include <string>
#include <vector>

namespace vdpa {

class SysfsTree {
 public:
  struct Function {
    std::string address;
    std::string ids = "1AF4:1041";  // as in uevent: vendor and device
    std::string subsystem = "1AF4:1100";
    std::string driver = {};  // empty: none
    std::string classCode = "20000";
    std::string numaNode = "0";             // the file's content; empty: no file
    int iommuGroup = -1;                    // -1: none
    std::vector<std::string> netdevs = {};  // below the function itself
  };

  // In a new directory, removed with the object.
  SysfsTree();
  ~SysfsTree();
  SysfsTree(const SysfsTree&) = delete;
  SysfsTree& operator=(const SysfsTree&) = delete;
  const std::string& path() const { return root_; }

  void add(const Function& function);
  void remove(const std::string& address);
  // Makes functions, which must exist, VFs 0, 1, ... of a PF.
  void setVfs(const std::string& pf, const std::vector<std::string>& addresses);
  void addNetdev(const std::string& function, const std::string& name,
                 const std::string& portName = "", const std::string& operstate = "up");
  // `parent` is a function or a slice; empty: a device without hardware. `driver` is vhost_vdpa,
  // virtio_vdpa or empty; `number` that of the character device.
  void addVdpa(const std::string& parent, const std::string& name, const std::string& driver,
               int number = 0);
  void removeVdpa(const std::string& name);
  // A part of a function on the auxiliary bus that is not a slice.
  void addPart(const std::string& function, const std::string& name);
  void addSlice(const std::string& function, const std::string& name, int number);
  void addVirtual(const std::string& netdev);
  // A PF with this many virtio VFs, each with a vDPA device under vhost_vdpa; `bus` distinguishes
  // PFs.
  void addLoadedPf(unsigned bus, unsigned vfs);

  void write(const std::string& file, const std::string& content);
  void link(const std::string& target, const std::string& name);
  std::string pathOf(const std::string& function) const;

 private:
  std::string root_;
  unsigned vdpaDevices_ = 0;
};

}  // namespace vdpa
