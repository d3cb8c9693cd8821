// The known vDPA drivers, with the hardware and features that each supports. The only place for
// this: offers, the attributes for `vdpa dev add` and the tables of deviceplugin/backends.md follow from it.
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

// A driver of the kernel. Its functions are those that become vDPA devices; a PF whose driver makes
// vDPA devices only of its VFs is not among them.
struct KernelVdpaDriver {
  // The PCI driver, and the prefix of management devices on the auxiliary bus ("mlx5_core.sf.4");
  // for a driver without hardware, its management device.
  const char* name;
  const char* module;  // the module that makes the vDPA devices
  std::span<const PciId> functions;
  const char* hardware;  // the same in words
  // Whether `vdpa dev add` takes these attributes.
  bool mac, mtu, queuePairs, features;
  bool macLater;        // `vdpa dev set` changes the MAC, visibly
  bool askForAll;       // without attributes a device has one queue pair and not all features
  uint64_t mandatory;   // features required in a list besides VERSION_1 and ACCESS_PLATFORM
  const char* suspend;  // "yes", "yes, and resume"; "no"
  // Why it can't be used like this; "": it can.
  const char* notProvisioned;
  const char* notOverSocket;
};
std::span<const KernelVdpaDriver> kernelVdpaDrivers();

// The attributes that `vdpa dev add` takes: "mac, mtu" or "nothing".
std::string addAttributes(const KernelVdpaDriver& driver);

// For a management device whose driver is not in the table: trying shows what it refuses.
const KernelVdpaDriver& unknownVdpaDriver();

// nullptr: none.
const KernelVdpaDriver* findKernelVdpaDriver(const std::string& name);

// A vDPA driver of DPDK 22.11.
struct DpdkVdpaDriver {
  const char* name;
  const char* library;       // DPDK's, without version: "librte_vdpa_ifc.so"
  const char* kernelDriver;  // the driver that the function must be bound to
  std::span<const PciId> functions;
  // It also takes these PFs. A selector for a card matches them too, so they are offered only if
  // the configuration has `backend: dpdk`.
  std::span<const PciId> pfs;
  const char* hardware;
  const char* selector;    // the devarg that asks for vDPA: other drivers know these devices too
  const char* devargs;     // default "KEY=VALUE", unless the operator gives that key; "": none
  unsigned megabytes;      // of DPDK memory that it needs
  const char* dirtyPages;  // how it logs them while a VM is migrated
};
std::span<const DpdkVdpaDriver> dpdkVdpaDrivers();

// The driver's `devargs`, or "" if the operator's have that key.
std::string defaultDevargs(const DpdkVdpaDriver& driver, const std::string& operators);

}  // namespace vdpa
