// Each card that the kernel or DPDK has a vDPA driver for, by the IDs its VFs show, and what serves
// it in each state that an operator may have left it in.
#include "deviceplugin/resources/serving.h"

#include <catch2/catch.hpp>

using namespace vdpa;

namespace {

struct Card {
  const char* name;
  const char* vendor;
  const char* device;
  const char* subsystemVendor;
  const char* kernelDriver;  // that makes vDPA devices; "": none does
  const char* dpdkDriver;    // "": none
  const char* belowDpdk;     // the kernel driver that one needs
};
constexpr Card kCards[] = {
    {"Intel N3000", "1af4", "1041", "8086", "ifcvf", "ifc", "vfio-pci"},
    {"SiliconWare", "1af4", "1041", "1ed8", "ifcvf", "", ""},
    {"virtio", "1af4", "1041", "1af4", "vp-vdpa", "", ""},
    {"Alibaba ENI", "1af4", "1000", "1af4", "eni-vdpa", "", ""},
    {"Intel, transitional", "1af4", "1000", "8086", "", "ifc", "vfio-pci"},
    {"ConnectX-6 Dx VF", "15b3", "101e", "15b3", "mlx5_core", "mlx5", "mlx5_core"},
    {"ConnectX-7", "15b3", "1021", "15b3", "mlx5_core", "mlx5", "mlx5_core"},
    {"ConnectX-5 VF", "15b3", "1018", "15b3", "mlx5_core", "", ""},
    {"BlueField-2", "15b3", "a2d6", "15b3", "mlx5_core", "mlx5", "mlx5_core"},
    {"SolidRun", "d063", "1000", "d063", "snet-vdpa-driver", "", ""},
    {"Pensando", "1dd8", "100b", "1dd8", "pds_core", "", ""},
    {"Octeon", "177d", "b903", "177d", "octep_vdpa", "", ""},
    {"Xilinx EF100", "10ee", "1100", "10ee", "", "sfc", "vfio-pci"},
    {"Intel 82576 VF", "8086", "10ca", "8086", "", "", ""},
};

PciFunction vfOf(const Card& card, const char* driver) {
  PciFunction vf;
  vf.address = "0000:65:00.2";
  vf.pf = "0000:65:00.0";
  vf.vendor = card.vendor;
  vf.device = card.device;
  vf.subsystemVendor = card.subsystemVendor;
  vf.driver = driver;
  return vf;
}

Serving served(const PciFunction& vf, BackendChoice backend, bool provision = false) {
  ResourceConfig resource;
  resource.backend = backend;
  resource.provision = provision;
  Candidate candidate;
  candidate.id = vf.address;
  candidate.function = &vf;
  return serve(resource, candidate);
}

}  // namespace

TEST_CASE("the kernel driver of each card") {
  for (const auto& card : kCards) {
    CAPTURE(card.name);
    const PciFunction vf = vfOf(card, "other");
    Candidate candidate;
    candidate.function = &vf;
    CHECK(vdpaDriverOf(candidate) == card.kernelDriver);
    const auto made = served(vf, BackendChoice::kernel, true);
    const auto refused = served(vf, BackendChoice::kernel);
    CHECK_FALSE(refused.device);
    if (*card.kernelDriver == '\0') {
      CHECK_FALSE(made.device);
      CHECK_THAT(made.why, Catch::EndsWith(" has no kernel vDPA driver"));
      continue;
    }
    REQUIRE(made.device);
    CHECK(made.device->backend == Backend::kernel);
    CHECK(made.device->pciDriver == card.kernelDriver);
    CHECK(made.device->managementDevice == "pci/0000:65:00.2");
    CHECK(made.device->pf == "0000:65:00.0");
    CHECK_THAT(refused.why, Catch::StartsWith(std::string("driver is other, needs ") +
                                              card.kernelDriver + "; `provision: vdpa`"));
  }
}

TEST_CASE("the DPDK driver of each card, over the kernel driver that it needs") {
  for (const auto& card : kCards) {
    CAPTURE(card.name);
    const auto bound = served(vfOf(card, card.belowDpdk), BackendChoice::dpdk);
    if (*card.dpdkDriver == '\0') {
      CHECK_FALSE(bound.device);
      CHECK_THAT(bound.why, Catch::EndsWith(" has no DPDK vDPA driver"));
      continue;
    }
    REQUIRE(bound.device);
    CHECK(bound.device->backend == Backend::dpdk);
    CHECK(bound.device->dpdkDriver == card.dpdkDriver);
    const auto other = served(vfOf(card, "other"), BackendChoice::dpdk);
    CHECK_FALSE(other.device);
    CHECK_THAT(other.why, Catch::Contains(std::string("needs ") + card.belowDpdk));
  }
}

TEST_CASE("by itself it takes what is ready, and else advises what comes first") {
  const Card& intel = kCards[0];
  for (const bool provision : {false, true})
    CHECK(served(vfOf(intel, "vfio-pci"), BackendChoice::automatic, provision).device->backend ==
          Backend::dpdk);
  CHECK(served(vfOf(intel, "virtio-pci"), BackendChoice::automatic, true).device->backend ==
        Backend::kernel);
  const Card& mellanox = kCards[5];  // both need the same driver
  CHECK(served(vfOf(mellanox, "mlx5_core"), BackendChoice::automatic, true).device->backend ==
        Backend::kernel);
  CHECK(served(vfOf(mellanox, "mlx5_core"), BackendChoice::automatic).device->backend ==
        Backend::dpdk);
  CHECK(served(vfOf(intel, ""), BackendChoice::automatic).why ==
        "driver is none, needs ifcvf; `provision: vdpa` would bind it (or vfio-pci for DPDK's "
        "ifc)");
  CHECK(served(vfOf(intel, "ifcvf"), BackendChoice::automatic).why ==
        "its driver ifcvf offers no vDPA device; is the driver's vDPA part loaded? (or vfio-pci "
        "for DPDK's ifc)");
}
