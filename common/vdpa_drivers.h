// The vDPA drivers that there are: which hardware each one takes, and what it can do. The one place
// for this: what is offered, what is passed to `vdpa dev add` and README's tables follow from it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace vdpa {

// As sysfs shows them: four hex digits, lower case; "": any.
struct PciId {
  const char* vendor;
  const char* device;
  const char* subsystemVendor;
  const char* subsystemDevice;

  bool fits(const std::string& vendorOf, const std::string& deviceOf,
            const std::string& subsystemVendorOf, const std::string& subsystemDeviceOf) const;
};

// "1af4:1041 of 8086:001a"
std::string describe(const PciId& id);

// A driver of the kernel. Its functions are those that become vDPA devices: a PF whose driver makes
// them of its VFs alone is not among them.
struct KernelVdpaDriver {
  // The PCI driver, and how management devices on the auxiliary bus begin ("mlx5_core.sf.4"); of a
  // driver without hardware its management device.
  const char* name;
  const char* module;  // that makes the vDPA devices
  std::span<const PciId> functions;
  const char* hardware;  // the same in words
  // Attributes of `vdpa dev add`, in its words.
  bool mac, mtu, queuePairs, features;
  bool macLater;        // `vdpa dev set` changes the MAC, and it is seen
  bool askForAll;       // without attributes a device has one queue pair and not all features
  uint64_t mandatory;   // features that a list of features needs beside VERSION_1, ACCESS_PLATFORM
  const char* suspend;  // "yes", "yes, and resume"; "no"
  // Why it can't be used that way; "": it can.
  const char* notProvisioned;
  const char* notOverSocket;
};
std::span<const KernelVdpaDriver> kernelVdpaDrivers();

// "mac, mtu": what `vdpa dev add` takes; "nothing".
std::string addAttributes(const KernelVdpaDriver& driver);

// For a management device whose driver is not in the table: what it refuses shows when it is tried.
const KernelVdpaDriver& unknownVdpaDriver();

// nullptr: none.
const KernelVdpaDriver* findKernelVdpaDriver(const std::string& name);

// A vDPA driver of DPDK 22.11.
struct DpdkVdpaDriver {
  const char* name;
  const char* kernelDriver;  // that the function is bound to
  std::span<const PciId> functions;
  // It takes these too. They are PFs, which a selector for a card means as well: they are offered
  // only where the configuration says `backend: dpdk`.
  std::span<const PciId> pfs;
  const char* hardware;
  const char* devargs;     // "KEY=VALUE", unless the operator gives that key; "": none
  const char* dirtyPages;  // how it logs them while a VM is migrated
};
std::span<const DpdkVdpaDriver> dpdkVdpaDrivers();

// The driver's `devargs`, unless those of the operator have that key: then "".
std::string defaultDevargs(const DpdkVdpaDriver& driver, const std::string& operators);

}  // namespace vdpa
