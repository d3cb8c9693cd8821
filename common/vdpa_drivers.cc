// Sources: Linux 6.12 for the kernel's drivers, DPDK 22.11 for DPDK's.
#include "common/vdpa_drivers.h"

#include <fmt/core.h>

#include <span>
#include <string>

#include "common/virtio_features.h"

namespace vdpa {
namespace {

bool is(const char* wanted, const std::string& found) {
  return *wanted == '\0' || found == wanted;
}

// drivers/net/ethernet/mellanox/mlx5/core/main.c:2247: all VFs from ConnectX-6 Dx on, BlueField-2
// and later included, have this one ID. The firmware feature VIRTIO_NET_Q, which mlx5_vdpa needs,
// came with ConnectX-6 Dx; a PF gets no management device (core/dev.c:109, mlx5_vnet_supported()).
constexpr PciId kMlx5[] = {{"15b3", "101e", "", ""}};
// drivers/vdpa/ifcvf/ifcvf_main.c:875, ifcvf_pci_ids.
constexpr PciId kIfcvf[] = {{"1af4", "1041", "8086", "001a"}, {"1af4", "1000", "8086", "0001"}};
// drivers/net/ethernet/amd/pds_core: PCI_DEVICE_ID_PENSANDO_VDPA_VF, as vdpa/pds/aux_drv.c:25.
constexpr PciId kPds[] = {{"1dd8", "100b", "", ""}};
// drivers/vdpa/octeon_ep/octep_vdpa_main.c:841; a PF only has VFs (octep_vdpa_probe()).
constexpr PciId kOctep[] = {
    {"177d", "b903", "", ""}, {"177d", "ba03", "", ""}, {"177d", "bd03", "", ""}};
// drivers/vdpa/solidrun/snet_main.c:1124.
constexpr PciId kSnet[] = {{"d063", "1000", "d063", "1000"}};
// drivers/vdpa/alibaba/eni_vdpa.c:541. QEMU's transitional network device has the same.
constexpr PciId kEni[] = {{"1af4", "1000", "1af4", "0001"}};
// drivers/vdpa/virtio_pci/vp_vdpa.c has no table: it takes a modern virtio function assigned by
// driver_override.
constexpr PciId kVirtio[] = {{"1af4", "1041", "", ""}};

constexpr const char* kNoManagement =
    "its driver makes the vDPA device itself and has no management device: bind it, and leave out "
    "`provision: vdpa`";

// The first match counts. Attributes: config_attr_mask of each driver's vdpa_mgmt_dev; suspend: its
// vdpa_config_ops.
constexpr KernelVdpaDriver kKernelDrivers[] = {
    // vdpa/mlx5/net/mlx5_vnet.c: one pair without max_vqp (:3880), no MRG_RXBUF without
    // device_features (:3850), no MAC if none is given and the function has none (:3953).
    // `vdpa dev set` (:4045) changes no features, so a MAC stays invisible then, and gives the
    // NIC's multi-PF switch the previous MAC. `resume` needs firmware (:4113).
    {"mlx5_core", "mlx5_vdpa", kMlx5,
     "VFs of ConnectX-6 Dx, BlueField-2 and later, and their scalable functions", true, true, true,
     true, false, true, 0, "yes, and resume", "", ""},
    {"ifcvf", "ifcvf", kIfcvf, "Intel N3000 and C5000X-PL", false, false, false, true, false, false,
     0, "no", "", ""},
    // vdpa/pds/vdpa_dev.c: all pairs without max_vqp (pds_vdpa_dev_add()).
    {"pds_core", "pds_vdpa", kPds, "VFs of AMD Pensando DSC", true, false, true, true, false, false,
     0, "no", "", ""},
    // vdpa/octeon_ep/octep_vdpa_main.c:253: kick_vq() is empty; octep_vdpa_hw.c:171 requires the
    // two features.
    {"octep_vdpa", "octep_vdpa", kOctep, "VFs of Marvell Octeon CN103K, CN105K and CN106K", false,
     false, false, true, false, false, kFeatureRingPacked | kFeatureNotificationData, "no", "",
     "its driver octep_vdpa ignores the kicks of a socket's queues and requires NOTIFICATION_DATA "
     "and RING_PACKED: `attach: virtio-vdpa` works"},
    {"snet-vdpa-driver", "snet_vdpa", kSnet, "SolidRun SolidNET DPUs", false, false, false, false,
     false, false, 0, "yes, and resume", kNoManagement, ""},
    {"alibaba-eni-vdpa", "eni_vdpa", kEni, "Alibaba Cloud ENI", false, false, false, false, false,
     false, 0, "no", kNoManagement, ""},
    {"vp-vdpa", "vp_vdpa", kVirtio, "any modern virtio network function", false, false, false, true,
     false, false, 0, "no", "", ""},
    // vdpa/vdpa_sim/vdpa_sim_net.c:549
    {"vdpasim_net",
     "vdpa_sim_net",
     {},
     "none: the kernel's simulator",
     true,
     true,
     false,
     true,
     true,
     false,
     0,
     "yes, and resume",
     "",
     ""},
    // vdpa/vdpa_user/vduse_dev.c: `vdpa dev add` takes only the name of a device that a program has
    // created.
    {"vduse",
     "vduse",
     {},
     "none: a program",
     false,
     false,
     false,
     false,
     false,
     false,
     0,
     "no",
     "a program has to make a VDUSE device first: `vdpa dev add` it, and leave out `provision: "
     "vdpa`",
     ""},
};

constexpr KernelVdpaDriver kUnknown = {"",   "",   {},   "", true, true, true,
                                       true, true, true, 0,  "no", "",   ""};

// DPDK drivers/vdpa/ifc/ifcvf_vdpa.c, pci_id_ifcvf_map.
constexpr PciId kIfc[] = {{"1af4", "1041", "8086", "001a"}, {"1af4", "1000", "8086", "0001"}};
// DPDK drivers/vdpa/mlx5/mlx5_vdpa.c, mlx5_vdpa_pci_id_map: the VFs of ConnectX-6 and later, then
// the PFs.
constexpr PciId kMlx5Vfs[] = {{"15b3", "101c", "", ""}, {"15b3", "101e", "", ""}};
constexpr PciId kMlx5Pfs[] = {{"15b3", "101b", "", ""}, {"15b3", "101d", "", ""},
                              {"15b3", "101f", "", ""}, {"15b3", "1021", "", ""},
                              {"15b3", "a2d6", "", ""}, {"15b3", "a2dc", "", ""}};
// DPDK drivers/vdpa/sfc/sfc_vdpa.c, pci_id_sfc_vdpa_efx_map.
constexpr PciId kSfc[] = {{"10ee", "1100", "", ""}};

constexpr DpdkVdpaDriver kDpdkDrivers[] = {
    {"ifc",
     "librte_vdpa_ifc.so",
     "vfio-pci",
     kIfc,
     {},
     "Intel N3000 and C5000X-PL",
     "vdpa=1",
     "",
     16,
     "by relaying the used rings"},
    // doc/guides/vdpadevs/mlx5.rst: event_mode 1, the default, polls completions in a thread.
    {"mlx5", "librte_vdpa_mlx5.so", "mlx5_core", kMlx5Vfs, kMlx5Pfs,
     "ConnectX-6, BlueField-2 and later", "class=vdpa", "event_mode=2", 64, "in hardware"},
    {"sfc",
     "librte_vdpa_sfc.so",
     "vfio-pci",
     kSfc,
     {},
     "VFs of Xilinx EF100",
     "class=vdpa",
     "",
     16,
     "no"},
};

}  // namespace

bool PciId::fits(const std::string& vendorOf, const std::string& deviceOf,
                 const std::string& subsystemVendorOf, const std::string& subsystemDeviceOf) const {
  return is(vendor, vendorOf) && is(device, deviceOf) && is(subsystemVendor, subsystemVendorOf) &&
         is(subsystemDevice, subsystemDeviceOf);
}

std::string describe(const PciId& id) {
  const std::string own = fmt::format("{}:{}", id.vendor, id.device);
  return *id.subsystemVendor == '\0'
             ? own
             : fmt::format("{} of {}:{}", own, id.subsystemVendor, id.subsystemDevice);
}

std::string addAttributes(const KernelVdpaDriver& driver) {
  std::string text;
  const auto add = [&](bool can, const char* name) {
    if (can) text += std::string(text.empty() ? "" : ", ") + name;
  };
  add(driver.mac, "mac");
  add(driver.mtu, "mtu");
  add(driver.queuePairs, "max_vqp");
  add(driver.features, "features");
  return text.empty() ? "nothing" : text;
}

std::span<const KernelVdpaDriver> kernelVdpaDrivers() {
  return kKernelDrivers;
}

const KernelVdpaDriver& unknownVdpaDriver() {
  return kUnknown;
}

const KernelVdpaDriver* findKernelVdpaDriver(const std::string& name) {
  for (const auto& driver : kKernelDrivers)
    if (name == driver.name) return &driver;
  return nullptr;
}

std::span<const DpdkVdpaDriver> dpdkVdpaDrivers() {
  return kDpdkDrivers;
}

std::string defaultDevargs(const DpdkVdpaDriver& driver, const std::string& operators) {
  const std::string devargs = driver.devargs;
  const std::string key = devargs.substr(0, devargs.find('=') + 1);
  const bool given = operators.starts_with(key) || operators.find("," + key) != std::string::npos;
  return devargs.empty() || given ? "" : devargs;
}

}  // namespace vdpa
