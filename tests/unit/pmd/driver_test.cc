// The arguments of DPDK's drivers.
#include "deviceplugin/datapath/pmd/driver.h"

#include <catch2/catch.hpp>

#include "common/vdpa_drivers.h"

using namespace vdpa;
using namespace vdpa::pmd;

TEST_CASE("mlx5 uses interrupts unless the operator says otherwise") {
  const DpdkVdpaDriver& mlx5 = findDriver("mlx5");
  CHECK(devargsOf(mlx5, "") == "class=vdpa,event_mode=2");
  CHECK(devargsOf(mlx5, "queues=4") == "class=vdpa,event_mode=2,queues=4");
  for (const char* operators : {"event_mode=1", "queues=4,event_mode=0,event_us=5"})
    CHECK(devargsOf(mlx5, operators) == std::string("class=vdpa,") + operators);
  CHECK(devargsOf(mlx5, "no_event_mode=1") == "class=vdpa,event_mode=2,no_event_mode=1");
}

TEST_CASE("other drivers get what they are asked by and what the operator gives") {
  CHECK(devargsOf(findDriver("ifc"), "") == "vdpa=1");
  CHECK(devargsOf(findDriver("ifc"), "sw-live-migration=1") == "vdpa=1,sw-live-migration=1");
  CHECK(devargsOf(findDriver("sfc"), "") == "class=vdpa");
}

TEST_CASE("the functions of each driver are those of the table") {
  CHECK(functionsOf(findDriver("ifc")) == "1af4:1041 of 8086:001a, 1af4:1000 of 8086:0001");
  CHECK(functionsOf(findDriver("mlx5")) ==
        "15b3:101c, 15b3:101e, 15b3:101b, 15b3:101d, 15b3:101f, 15b3:1021, 15b3:a2d6, 15b3:a2dc");
  CHECK(functionsOf(findDriver("sfc")) == "10ee:1100");
}
