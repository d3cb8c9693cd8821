// The files that an application reads about its device.
#include "deviceplugin/datapath/pod_files/device_files.h"

#include <catch2/catch.hpp>

#include "common/atomic_file.h"
#include "common/backend.h"
#include "common/json.h"
#include "common/vlan_ranges.h"
#include "deviceplugin/datapath/model/attachment.h"
#include "deviceplugin/datapath/records/owner_record.h"
#include "tests/unit/datapath/temporary_directory.h"
#include "tests/unit/mac_literal.h"

using namespace vdpa;
using namespace vdpa::datapath;

namespace {

OwnerRecord example() {
  OwnerRecord record;
  Attachment& attachment = record.attachment;
  attachment.deviceId = "nic-0";
  attachment.resource = "vdpa.io/nic";
  attachment.owner.interface = "net1";
  attachment.owner.network = "fast";
  attachment.port.mac = "02:00:00:00:00:07"_mac;
  attachment.port.vlan = 12;
  attachment.port.mtu = 1400;
  attachment.queuePairs = 2;
  attachment.queueSize = 256;
  attachment.ips = {"10.0.0.2/24", "fd00::2/64"};
  attachment.socket = "/run/vdpa/nic-0/vhost.sock";
  return record;
}

}  // namespace

TEST_CASE("device.json has every key, also those without a value") {
  OwnerRecord trunk = example();
  trunk.attachment.port.vlanTrunk = VlanRanges::parse("100-110,200");
  CHECK(deviceJson(trunk).at("vlanTrunk") == "100-110,200");
  CHECK(deviceJson(example()) == nlohmann::json::parse(R"({
    "deviceID": "nic-0", "resource": "vdpa.io/nic", "backend": "software",
    "socket": "/run/vdpa/nic-0/vhost.sock", "mac": "02:00:00:00:00:07", "mtu": 1400,
    "queuePairs": 2, "queueSize": 256, "vlan": 12, "vlanTrunk": "", "network": "fast", "interface": "net1",
    "ips": ["10.0.0.2/24", "fd00::2/64"], "numaNode": null})"));
}

TEST_CASE("eal-args is one argument that EAL takes as it is") {
  Attachment attachment = example().attachment;
  CHECK(
      ealArguments(attachment) ==
      "--vdev=net_virtio_user_net1,path=/run/vdpa/nic-0/vhost.sock,mac=02:00:00:00:00:07,queues=2,"
      "queue_size=256");
  attachment.owner.interface = "a,b=c d";  // neither EAL nor a shell may split it
  CHECK(ealArguments(attachment).starts_with("--vdev=net_virtio_user_a_b_c_d,path="));
}

TEST_CASE("a device that is handed over directly") {
  OwnerRecord record = example();
  record.device.backend = BackendKind::kernel;
  record.device.attach = Attach::vhostVdpa;
  record.device.numaNode = 1;
  record.attachment.socket = "/dev/vhost-vdpa-3";
  CHECK(deviceJson(record)["backend"] == "kernel");
  CHECK(deviceJson(record)["socket"] == "/dev/vhost-vdpa-3");
  CHECK(deviceJson(record)["numaNode"] == 1);
  CHECK_THAT(ealArguments(record.attachment), Catch::Contains("path=/dev/vhost-vdpa-3,"));
  record.attachment.socket = "";  // a netdev
  CHECK(ealArguments(record.attachment) == "");
}

TEST_CASE("the files are written whole") {
  const TemporaryDirectory directory;
  writeDeviceFiles(directory.path(), example());
  CHECK(nlohmann::json::parse(readFile(directory.path() + "/device.json")) ==
        deviceJson(example()));
  CHECK(readFile(directory.path() + "/eal-args") == ealArguments(example().attachment) + "\n");
}
