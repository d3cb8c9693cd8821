// The fields of a request that a receiver of another release knows.
#include "common/known_fields.h"

#include <catch2/catch.hpp>

#include <set>
#include <string>

#include "common/version.h"

namespace vdpa {
namespace {

using Fields = std::set<std::string>;

// Every field that release 0.1.0 has.
datapath::v1::SetDevicesRequest everythingOf010() {
  datapath::v1::SetDevicesRequest request;
  auto& resource = *request.add_resources();
  resource.set_name("vdpa.io/nic");
  auto& socket = *resource.mutable_socket();
  socket.set_uid(1);
  socket.set_gid(2);
  socket.set_mode(0600);
  socket.set_selinux_label("label");
  auto& software = *resource.mutable_software();
  software.set_queue_pairs(2);
  software.set_mtu(9000);
  software.set_uplink_netdev("eth1");
  software.set_cores("2-3");
  for (int i = 0; i < 2; ++i) {
    auto& device = *resource.add_devices();
    device.set_id("device");
    device.set_attach("vhost-user");
    device.set_numa_node(1);
    device.set_queue_pairs(2);
  }
  auto& kernel = *resource.mutable_devices(0)->mutable_kernel();
  kernel.set_vdpa("vdpa0");
  kernel.set_management_device("pci/0000:65:00.2");
  kernel.set_provision(true);
  kernel.set_pci_address("0000:65:00.2");
  kernel.set_pci_driver("mlx5_core");
  auto& dpdk = *resource.mutable_devices(1)->mutable_dpdk();
  dpdk.set_pci_address("0000:65:00.3");
  dpdk.set_driver("ifc");
  dpdk.set_devargs("sw-live-migration=1");
  return request;
}

}  // namespace

TEST_CASE("release 0.1.0 tells nothing of itself: it knows its own fields and no others") {
  auto request = everythingOf010();
  CHECK(unknownTo(nullptr, request) == Fields());
  auto& kernel = *request.mutable_resources(0)->mutable_devices(0)->mutable_kernel();
  kernel.mutable_parent()->set_mac_later(true);
  CHECK(unknownTo(nullptr, request) == Fields());  // it may ignore this one
  kernel.mutable_attributes()->set_mtu(9000);
  CHECK(unknownTo(nullptr, request) == Fields{"KernelDevice.attributes"});
  kernel.clear_attributes();
  auto& software = *request.mutable_resources(0)->mutable_software();
  software.set_offloads(false);
  software.set_storm_limit(0);
  software.set_uplink_xdp(true);
  software.set_uplink_pci("0000:03:00.0");
  CHECK(unknownTo(nullptr, request) ==
        Fields{"SoftwareSwitch.offloads", "SoftwareSwitch.storm_limit", "SoftwareSwitch.uplink_pci",
               "SoftwareSwitch.uplink_xdp"});
}

TEST_CASE("another receiver knows what it does not report") {
  auto request = everythingOf010();
  request.mutable_resources(0)->mutable_devices(0)->mutable_kernel()->mutable_attributes()->set_mtu(
      9000);
  datapath::v1::Receiver receiver;
  CHECK(unknownTo(&receiver, request) == Fields());
  receiver.add_unknown_fields("VdpaAttributes.3");
  receiver.add_unknown_fields("SocketOptions.4");
  receiver.add_unknown_fields("Route.7");
  CHECK(unknownTo(&receiver, request) ==
        Fields{"SocketOptions.selinux_label", "VdpaAttributes.mtu"});
}

TEST_CASE("what is not known is reported once, with this version") {
  auto request = everythingOf010();
  CHECK(receiverOf(request).unknown_fields().empty());
  CHECK(receiverOf(request).version() == programVersion());
  for (auto& device : *request.mutable_resources(0)->mutable_devices())
    device.GetReflection()->MutableUnknownFields(&device)->AddVarint(99, 1);
  const auto told = receiverOf(request).unknown_fields();
  CHECK(Fields(told.begin(), told.end()) == Fields{"Device.99"});
  CHECK(told.size() == 1);
}

}  // namespace vdpa
