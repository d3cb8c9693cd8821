// Each card with a vDPA driver in the kernel or DPDK, by the IDs of its VFs, and its backend in
// each state in which an operator may have left it.
#include "deviceplugin/resources/backend_fit.h"

#include <catch2/catch.hpp>

#include <cstdint>
#include <stdexcept>

#include "common/backend.h"
#include "common/virtio_features.h"
#include "deviceplugin/config/config.h"
#include "deviceplugin/discovery/snapshot.h"
#include "deviceplugin/resources/candidate.h"

using namespace vdpa;
using namespace vdpa::plugin;

namespace {

struct Card {
  const char* name;
  const char* vendor;
  const char* device;
  const char* subsystemVendor;
  const char* subsystemDevice;
  const char* kernelDriver;  // that provisioning binds; "": none makes a vDPA device
  const char* dpdkDriver;    // "": none
  const char* belowDpdk;     // the kernel driver that DPDK's needs
};
// From the drivers' tables of IDs, and neighbouring IDs without a driver.
constexpr Card kCards[] = {
    {"Intel N3000", "1af4", "1041", "8086", "001a", "ifcvf", "ifc", "vfio-pci"},
    {"Intel C5000X-PL", "1af4", "1000", "8086", "0001", "ifcvf", "ifc", "vfio-pci"},
    {"Intel, another modern one", "1af4", "1041", "8086", "0001", "vp-vdpa", "", ""},
    {"Intel, another transitional one", "1af4", "1000", "8086", "001a", "", "", ""},
    {"SiliconWare", "1af4", "1041", "1ed8", "0001", "vp-vdpa", "", ""},
    {"virtio", "1af4", "1041", "1af4", "1100", "vp-vdpa", "", ""},
    {"ConnectX-6 Dx VF", "15b3", "101e", "15b3", "0058", "mlx5_core", "mlx5", "mlx5_core"},
    {"ConnectX-6 VF", "15b3", "101c", "15b3", "0058", "", "mlx5", "mlx5_core"},
    {"ConnectX-4", "15b3", "1013", "15b3", "0058", "", "", ""},
    {"ConnectX-4 VF", "15b3", "1014", "15b3", "0058", "", "", ""},
    {"ConnectX-5 VF", "15b3", "1018", "15b3", "0058", "", "", ""},
    {"ConnectX-6 Dx", "15b3", "101d", "15b3", "0058", "", "mlx5", "mlx5_core"},
    {"ConnectX-7", "15b3", "1021", "15b3", "0058", "", "mlx5", "mlx5_core"},
    {"BlueField-2", "15b3", "a2d6", "15b3", "0058", "", "mlx5", "mlx5_core"},
    {"Pensando VF", "1dd8", "100b", "1dd8", "5001", "pds_core", "", ""},
    {"Pensando", "1dd8", "1002", "1dd8", "5001", "", "", ""},
    {"Octeon CN106K VF", "177d", "b903", "177d", "b903", "octep_vdpa", "", ""},
    {"Octeon CN105K VF", "177d", "ba03", "177d", "ba03", "octep_vdpa", "", ""},
    {"Octeon CN103K VF", "177d", "bd03", "177d", "bd03", "octep_vdpa", "", ""},
    {"Octeon CN106K", "177d", "b900", "177d", "b900", "", "", ""},
    {"Xilinx EF100", "10ee", "1100", "10ee", "0001", "", "sfc", "vfio-pci"},
    {"Intel 82576 VF", "8086", "10ca", "8086", "a03c", "", "", ""},
};
// Their drivers make the vDPA device by themselves.
constexpr Card kByThemselves[] = {
    {"SolidRun", "d063", "1000", "d063", "1000", "snet-vdpa-driver", "", ""},
    {"Alibaba ENI", "1af4", "1000", "1af4", "0001", "alibaba-eni-vdpa", "", ""},
};

PciFunction vfOf(const Card& card, const char* driver) {
  PciFunction vf;
  vf.address = "0000:65:00.2";
  vf.pf = "0000:65:00.0";
  vf.vendor = card.vendor;
  vf.device = card.device;
  vf.subsystemVendor = card.subsystemVendor;
  vf.subsystemDevice = card.subsystemDevice;
  vf.driver = driver;
  return vf;
}

// Octeon's can't serve a socket, the default; with virtio-vdpa, which every driver supports.
BackendFit served(const PciFunction& vf, BackendChoice backend, bool provision = false,
                  Attach attach = Attach::virtioVdpa) {
  ResourceConfig resource;
  resource.backend = backend;
  resource.provision = provision;
  resource.attach = attach;
  Candidate candidate;
  candidate.id = vf.address;
  candidate.function = &vf;
  return fitBackend(resource, candidate);
}

// A function with its management device, as mlx5_core shows one with four pairs.
class Managed {
 public:
  explicit Managed(const Card& card) : vf_(vfOf(card, card.kernelDriver)) {
    management_ = {"pci/" + vf_.address, vf_.address, true, 9, kFeatures};
  }
  static constexpr uint64_t kFeatures =
      kFeatureMac | kFeatureMtu | kFeatureControlQueue | kFeatureMultiqueue | kFeatureVersion1;

  // The vDPA device of this name, as the kernel reports it.
  void add(const std::string& name, unsigned queuePairs, unsigned mtu, uint64_t features) {
    vdpa_.name = name;
    vdpa_.managementDevice = management_.name;
    vdpa_.pciAddress = vf_.address;
    vdpa_.busDriver = "vhost_vdpa";
    vdpa_.characterDevice = "vhost-vdpa-3";
    vdpa_.queuePairs = queuePairs;
    vdpa_.mtu = mtu;
    vdpa_.features = features;
  }

  BackendFit served(const VdpaConfig& vdpa, Attach attach = Attach::vhostUser) const {
    ResourceConfig resource;
    resource.provision = true;
    resource.attach = attach;
    resource.vdpa = vdpa;
    Candidate candidate;
    candidate.id = vf_.address;
    candidate.function = &vf_;
    candidate.management = &management_;
    if (!vdpa_.name.empty()) candidate.vdpa = &vdpa_;
    return fitBackend(resource, candidate);
  }

 private:
  PciFunction vf_;
  ManagementDevice management_;
  VdpaDevice vdpa_;
};

const Card& card(const std::string& name) {
  for (const auto& card : kCards)
    if (card.name == name) return card;
  throw std::runtime_error("no card " + name);
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
    CHECK(made.device->backend == BackendKind::kernel);
    CHECK(made.device->pciDriver == card.kernelDriver);
    CHECK(made.device->rules.driver == card.kernelDriver);
    CHECK(made.device->managementDevice == "pci/0000:65:00.2");
    CHECK(made.device->pf == "0000:65:00.0");
    CHECK_THAT(refused.why, Catch::StartsWith(std::string("driver is other, needs ") +
                                              card.kernelDriver + "; `provision: vdpa`"));
  }
}

TEST_CASE("a driver without a management device is not provisioned, and says how it is used") {
  for (const auto& card : kByThemselves) {
    CAPTURE(card.name);
    const auto refused = served(vfOf(card, card.kernelDriver), BackendChoice::kernel, true);
    CHECK_FALSE(refused.device);
    CHECK_THAT(refused.why, Catch::Contains("leave out `provision: vdpa`"));
    CHECK_THAT(served(vfOf(card, ""), BackendChoice::kernel).why,
               Catch::StartsWith(std::string("driver is none, needs ") + card.kernelDriver));
  }
}

TEST_CASE("what mlx5_core makes less of by itself is asked for; another driver is asked nothing") {
  const auto mlx5 = Managed(card("ConnectX-6 Dx VF")).served({});
  REQUIRE(mlx5.device);
  CHECK(mlx5.device->attributes == VdpaAttributes{0, 0, 0, {}});  // all pairs, all features
  CHECK(mlx5.device->rules == VdpaRules{"mlx5_core", true, true, false});
  CHECK(mlx5.why ==
        "vDPA device vdpa-0000:65:00.2, to be made with all queue pairs, all features; remade "
        "for a MAC or an MTU");
  const auto virtio = Managed(card("virtio")).served({});
  REQUIRE(virtio.device);
  CHECK(virtio.device->attributes == VdpaAttributes());
  CHECK(virtio.why == "vDPA device vdpa-0000:65:00.2, to be made with the driver's defaults");
}

TEST_CASE("attributes of the configuration: passed, or refused by name with what there is") {
  const Managed mlx5(card("ConnectX-6 Dx VF"));
  const auto some = mlx5.served({2, 9000, kFeatureMac | kFeatureMtu});
  REQUIRE(some.device);
  CHECK(some.device->attributes == VdpaAttributes{2, kFeatureMac | kFeatureMtu, 9000, {}});
  CHECK(some.device->queuePairs == 2);
  // A list without MQ means one pair, also for a driver that makes more by default.
  for (const char* name : {"ConnectX-6 Dx VF", "Pensando VF"}) {
    const auto one = Managed(card(name)).served({0, 0, kFeatureMtu});
    REQUIRE(one.device);
    CHECK(one.device->attributes == VdpaAttributes{1, kFeatureMtu, 0, {}});
    CHECK(one.device->queuePairs == 1);
  }

  CHECK(mlx5.served({5, 0, 0}).why == "vdpa.queuePairs is 5, but pci/0000:65:00.2 makes at most 4");
  CHECK(mlx5.served({0, 0, kFeatureMac | *parseFeature("RSS")}).why ==
        "vdpa.features has RSS, which pci/0000:65:00.2 does not support; it supports MTU, MAC, "
        "CTRL_VQ, MQ, VERSION_1");
  const auto refused = Managed(card("Intel N3000")).served({0, 9000, 0});
  CHECK_FALSE(refused.device);
  CHECK(refused.why ==
        "vdpa.mtu is not supported: `vdpa dev add` of its driver ifcvf takes features");
}

TEST_CASE("a device that has other attributes than it should is explained with those it has") {
  constexpr uint64_t kFeatures = Managed::kFeatures;
  Managed mlx5(card("ConnectX-6 Dx VF"));
  const std::string name = "vdpa-0000:65:00.2",
                    under = "vDPA device " + name + " under vhost_vdpa, ";
  mlx5.add(name, 4, 1500, kFeatures & ~kFeatureMac);  // its function has no MAC
  CHECK(mlx5.served({}).why ==
        under + "made with all queue pairs, all features; remade for a MAC or an MTU");

  mlx5.add(name, 1, 1500, kFeatures & ~kFeatureMultiqueue);
  const auto less = mlx5.served({0, 9000, 0}).why;
  CHECK_THAT(less, Catch::StartsWith(under +
                                     "to be made with all queue pairs, mtu 9000, all features, but "
                                     "it has 1 queue pair, mtu 1500, no MQ: "));
  CHECK_THAT(less, Catch::Contains("`vdpa dev del " + name + "`"));
  CHECK_THAT(mlx5.served({1, 0, 0}).why, Catch::StartsWith(under + "made with 1 queue pair"));

  mlx5.add("vdpa0", 1, 1500, kFeatures);
  const auto others = mlx5.served({});
  REQUIRE(others.device);
  CHECK_FALSE(others.device->provision);
  CHECK_THAT(others.why,
             Catch::Contains("made by another program, with that program's attributes") &&
                 Catch::Contains("`vdpa dev del vdpa0`"));
}

TEST_CASE("Octeon is refused behind a socket with the reason, and not as a netdev") {
  const Managed octeon(card("Octeon CN106K VF"));
  const auto refused = octeon.served({});
  CHECK_FALSE(refused.device);
  CHECK_THAT(refused.why, Catch::Contains("ignores the kicks of a socket's queues") &&
                              Catch::Contains("NOTIFICATION_DATA") &&
                              Catch::Contains("`attach: virtio-vdpa` works"));
  CHECK(octeon.served({}, Attach::virtioVdpa).device);
  const auto listed = octeon.served({0, 0, kFeatureMac}, Attach::virtioVdpa);
  CHECK_FALSE(listed.device);  // this list lacks features that the driver requires
  CHECK_THAT(listed.why, Catch::Contains("RING_PACKED, NOTIFICATION_DATA"));
}

TEST_CASE("the DPDK driver of each card, over the kernel driver that it needs") {
  for (const auto& card : kCards) {
    CAPTURE(card.name);
    const auto bound =
        served(vfOf(card, card.belowDpdk), BackendChoice::dpdk, false, Attach::vhostUser);
    if (*card.dpdkDriver == '\0') {
      CHECK_FALSE(bound.device);
      CHECK_THAT(bound.why, Catch::EndsWith(" has no DPDK vDPA driver"));
      continue;
    }
    REQUIRE(bound.device);
    CHECK(bound.device->backend == BackendKind::dpdk);
    CHECK(bound.device->dpdkDriver == card.dpdkDriver);
    const auto other = served(vfOf(card, "other"), BackendChoice::dpdk, false, Attach::vhostUser);
    CHECK_FALSE(other.device);
    CHECK_THAT(other.why, Catch::Contains(std::string("needs ") + card.belowDpdk));
  }
}

TEST_CASE("by itself it takes what is ready, and else advises what comes first") {
  const auto automatic = [](const Card& card, const char* driver, bool provision = false) {
    return served(vfOf(card, driver), BackendChoice::automatic, provision, Attach::vhostUser);
  };
  const Card& intel = card("Intel N3000");
  for (const bool provision : {false, true})
    CHECK(automatic(intel, "vfio-pci", provision).device->backend == BackendKind::dpdk);
  CHECK(automatic(intel, "virtio-pci", true).device->backend == BackendKind::kernel);
  const Card& mellanox = card("ConnectX-6 Dx VF");  // both need the same driver
  CHECK(automatic(mellanox, "mlx5_core", true).device->backend == BackendKind::kernel);
  CHECK(automatic(mellanox, "mlx5_core").device->backend == BackendKind::dpdk);
  CHECK(automatic(intel, "").why ==
        "driver is none, needs ifcvf; `provision: vdpa` would bind it (or vfio-pci for DPDK's "
        "ifc)");
  CHECK(automatic(intel, "ifcvf").why ==
        "its driver ifcvf offers no vDPA device; is the driver's vDPA part (ifcvf) loaded? (or "
        "vfio-pci for DPDK's ifc)");
}

TEST_CASE("what DPDK's mlx5 is given by default is said, and left out where the operator has it") {
  const PciFunction vf = vfOf(card("ConnectX-6 Dx VF"), "mlx5_core");
  Candidate candidate;
  candidate.function = &vf;
  ResourceConfig resource;
  resource.backend = BackendChoice::dpdk;
  CHECK(fitBackend(resource, candidate).why ==
        "DPDK driver mlx5 over mlx5_core, with event_mode=2");
  resource.devargs = "queues=4,event_mode=0";
  CHECK(fitBackend(resource, candidate).why == "DPDK driver mlx5 over mlx5_core");
}

TEST_CASE("a PF is given to DPDK only by name") {
  const PciFunction pf = vfOf(card("ConnectX-6 Dx"), "mlx5_core");
  for (const bool provision : {false, true}) {
    const auto refused = served(pf, BackendChoice::automatic, provision, Attach::vhostUser);
    CHECK_FALSE(refused.device);
    CHECK(refused.why ==
          "15b3:101d is not a function that mlx5_vdpa supports (VFs of ConnectX-6 Dx, BlueField-2 "
          "and later, and their scalable functions), and has no kernel vDPA driver");
  }
  CHECK(served(pf, BackendChoice::dpdk, false, Attach::vhostUser).device);
}
