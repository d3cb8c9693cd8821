// Messages of the kernel's vdpa family, complete and truncated.
#include "common/netlink/vdpa_netlink.h"

#include <catch2/catch.hpp>
#include <linux/netlink.h>
#include <linux/vdpa.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tests/unit/mac_literal.h"

using namespace vdpa;

namespace {

class Attributes {
 public:
  template <typename Number>
  Attributes& number(uint16_t type, Number value) {
    return bytes(type, &value, sizeof value);
  }
  Attributes& text(uint16_t type, const char* value) {
    return bytes(type, value, std::strlen(value) + 1);
  }
  Attributes& bytes(uint16_t type, const void* value, size_t size) {
    const nlattr header{static_cast<uint16_t>(sizeof header + size), type};
    const size_t at = data_.size();
    data_.resize(at + ((sizeof header + size + 3) & ~size_t{3}));
    std::memcpy(data_.data() + at, &header, sizeof header);
    std::memcpy(data_.data() + at + sizeof header, value, size);
    return *this;
  }
  std::span<const std::byte> data() const { return data_; }

 private:
  std::vector<std::byte> data_;
};

Attributes device() {
  const uint8_t mac[6] = {0x52, 0x54, 0, 0, 3, 1};
  Attributes attributes;
  attributes.text(VDPA_ATTR_DEV_NAME, "vdpa1")
      .text(VDPA_ATTR_MGMTDEV_BUS_NAME, "pci")
      .text(VDPA_ATTR_MGMTDEV_DEV_NAME, "0000:41:00.1")
      .number<uint32_t>(VDPA_ATTR_DEV_ID, 1)
      .number<uint32_t>(VDPA_ATTR_DEV_MAX_VQS, 5)
      .number<uint16_t>(VDPA_ATTR_DEV_MAX_VQ_SIZE, 256)
      .number<uint16_t>(VDPA_ATTR_DEV_NET_CFG_MAX_VQP, 2)
      .number<uint16_t>(VDPA_ATTR_DEV_NET_CFG_MTU, 1500)
      .bytes(VDPA_ATTR_DEV_NET_CFG_MACADDR, mac, sizeof mac)
      .number<uint64_t>(VDPA_ATTR_DEV_FEATURES, 0x300000000);
  return attributes;
}

}  // namespace

TEST_CASE("a device") {
  const auto info = parseVdpaDevice(device().data());
  CHECK(info.name == "vdpa1");
  CHECK(info.managementDevice == "pci/0000:41:00.1");
  CHECK(info.deviceId == 1);
  CHECK(info.maxVirtqueues == 5);
  CHECK(info.maxQueueSize == 256);
  CHECK(info.maxQueuePairs == 2);
  CHECK(info.mac == "52:54:00:00:03:01"_mac);
  CHECK(info.mtu == 1500);
  CHECK(info.features == 0x300000000);
}

TEST_CASE("management devices, with and without a bus") {
  Attributes attributes;
  attributes.text(VDPA_ATTR_MGMTDEV_DEV_NAME, "vdpasim_net")
      .number<uint64_t>(VDPA_ATTR_MGMTDEV_SUPPORTED_CLASSES, 2)
      .number<uint32_t>(VDPA_ATTR_DEV_MGMTDEV_MAX_VQS, 3);
  const auto info = parseVdpaManagement(attributes.data());
  CHECK(info.name == "vdpasim_net");
  CHECK(info.classes == 2);
  CHECK(info.maxVirtqueues == 3);
}

TEST_CASE("messages that are cut short, or whose values have another size") {
  const auto whole = device();
  for (size_t size = 0; size <= whole.data().size(); ++size)
    CHECK_NOTHROW(parseVdpaDevice(whole.data().first(size)));
  Attributes odd;
  odd.number<uint8_t>(VDPA_ATTR_DEV_MAX_VQS, 5).bytes(VDPA_ATTR_DEV_NET_CFG_MACADDR, "abc", 3);
  odd.bytes(VDPA_ATTR_DEV_NAME, "no end", 6);
  const auto info = parseVdpaDevice(odd.data());
  CHECK(info.maxVirtqueues == 0);
  CHECK_FALSE(info.mac);
  CHECK(info.name == "no end");
}

TEST_CASE("a MAC of zeros is none") {
  const uint8_t zeros[6] = {};
  Attributes attributes;
  attributes.bytes(VDPA_ATTR_DEV_NET_CFG_MACADDR, zeros, sizeof zeros);
  CHECK_FALSE(parseVdpaDevice(attributes.data()).mac);
}

TEST_CASE("a kernel without vDPA has no devices, and says what is missing when asked to make one") {
  VdpaNetlink netlink;
  const auto dump = netlink.dump();
  CHECK(dump.problem == "");
  if (dump.management.empty()) CHECK_THROWS(netlink.add("vdpa0", "no-such-device", {}));
}

TEST_CASE("a vDPA device's counters of a virtqueue") {
  Attributes attributes = device();
  attributes.number<uint32_t>(VDPA_ATTR_DEV_QUEUE_INDEX, 1)
      .number<uint64_t>(VDPA_ATTR_DEV_VENDOR_ATTR_VALUE, 99)  // of no name
      .text(VDPA_ATTR_DEV_VENDOR_ATTR_NAME, "received_desc")
      .number<uint64_t>(VDPA_ATTR_DEV_VENDOR_ATTR_VALUE, 7)
      .text(VDPA_ATTR_DEV_VENDOR_ATTR_NAME, "completed_desc")
      .number<uint64_t>(VDPA_ATTR_DEV_VENDOR_ATTR_VALUE, 5);
  CHECK(parseVdpaQueueEvents(attributes.data()) ==
        VdpaQueueEvents{{"received_desc", 7}, {"completed_desc", 5}});
  for (size_t length = 0; length < attributes.data().size(); ++length)
    CHECK(parseVdpaQueueEvents(attributes.data().first(length)).size() <= 2);
}
