#include "deviceplugin/guest/driver_ring.h"

#include <catch2/catch.hpp>

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "deviceplugin/datapath/virtqueue/buffer_reader.h"
#include "deviceplugin/datapath/virtqueue/guest_access.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "deviceplugin/guest/shared_memory.h"

namespace vdpa::guest {
namespace {

using namespace vdpa::virtqueue;

// A split receive ring of four entries, and its device.
class Scene {
 public:
  SharedMemory memory{1 << 16};
  DriverRing ring{memory, Direction::kReceive, options()};

  static RingOptions options() {
    RingOptions options;
    options.size = 4;
    return options;
  }
  std::byte* driverArea() const { return reinterpret_cast<std::byte*>(ring.addresses().driver); }
  std::byte* deviceArea() const { return reinterpret_cast<std::byte*>(ring.addresses().device); }
  // As the device uses a buffer.
  void use(uint16_t index, uint32_t buffer, uint32_t length) const {
    store(deviceArea() + split::kRing + split::kUsedElement * (index % 4),
          buffer | uint64_t{length} << 32);
    storeRelease(deviceArea() + split::kIndex, static_cast<uint16_t>(index + 1));
  }
};

TEST_CASE("a driver asks for notifications only when it is about to sleep") {
  Scene scene;
  CHECK(load<uint16_t>(scene.driverArea() + split::kFlags) == split::kNoInterrupt);
  scene.ring.setCalls(true);
  CHECK(load<uint16_t>(scene.driverArea() + split::kFlags) == 0);
  scene.ring.setCalls(false);
  CHECK(load<uint16_t>(scene.driverArea() + split::kFlags) == split::kNoInterrupt);
}

TEST_CASE("used buffers are taken once, in their order") {
  Scene scene;
  scene.use(0, 2, 60);
  scene.use(1, 0, 70);
  const auto used = scene.ring.take();
  REQUIRE(used.size() == 2);
  CHECK(used[0].buffer == 2);
  CHECK(used[1].length == 70);
  CHECK(scene.ring.take().empty());
}

TEST_CASE("a device that breaks the rules is noticed") {
  Scene scene;
  SECTION("a buffer that is not there") {
    scene.use(0, 4, 60);
  }
  SECTION("more buffers than there are") {
    scene.use(4, 0, 60);
  }
  CHECK_THROWS_AS(scene.ring.take(), std::runtime_error);
}

}  // namespace
}  // namespace vdpa::guest
