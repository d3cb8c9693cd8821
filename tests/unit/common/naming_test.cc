// The names every other part relies on.
#include "common/naming.h"

#include <catch2/catch.hpp>

using namespace vdpa;

TEST_CASE("resource names are what Kubernetes accepts after the slash") {
  for (const char* good : {"nic", "a", "0", "nic-1", "nic_1.x"}) CHECK(isResourceName(good));
  for (const char* bad : {"", "Nic", "-nic", "nic-", "nic.", "n/c", "n c"})
    CHECK_FALSE(isResourceName(bad));
  CHECK(isResourceName(std::string(63, 'a')));
  CHECK_FALSE(isResourceName(std::string(64, 'a')));
}

TEST_CASE("prefixes are DNS subdomains with a dot") {
  for (const char* good : {"vdpa.io", "dev.vdpa.io", "a.b", "a-b.c0"})
    CHECK(isResourcePrefix(good));
  for (const char* bad : {"", "vdpa", ".io", "vdpa.", "a..b", "-a.b", "a-.b", "A.b", "a_b.c"})
    CHECK_FALSE(isResourcePrefix(bad));
}

TEST_CASE("names derived from a resource") {
  CHECK(variableName("vdpa.io/nic") == "VDPA_IO_NIC");
  CHECK(variableName("dev.vdpa.io/nic-a_1") == "DEV_VDPA_IO_NIC_A_1");
  CHECK(fileName("vdpa.io/nic") == "vdpa.io-nic");
  CHECK(softwareDeviceId("nic", 0) == "nic-0");
  CHECK(podSocket("0000:65:00.2") == "/run/vdpa/0000:65:00.2/vhost.sock");
}
