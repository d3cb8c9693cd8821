// The service that the kubelet calls, on its socket.
#include "deviceplugin/kubelet/plugin_server.h"

#include <catch2/catch.hpp>

#include <chrono>
#include <string>
#include <vector>

#include "deviceplugin/config/config.h"
#include "deviceplugin/kubelet/allocation.h"
#include "deviceplugin/kubelet/device_info_files.h"
#include "deviceplugin/kubelet/device_list.h"
#include "deviceplugin/resources/device.h"
#include "tests/unit/datapath/temporary_directory.h"

namespace vdpa::plugin {
namespace {

Device function(const std::string& id, const std::string& pf) {
  Device device;
  device.id = id;
  device.pf = pf;
  return device;
}

// The advice to the kubelet for two of four devices on two PFs.
std::vector<std::string> preferred(AllocationOrder order) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/nic.sock";
  DeviceInfoFiles files(directory.path() + "/dp");
  DeviceList devices({function("a-0", "eth0"), function("a-1", "eth0"), function("b-0", "eth1"),
                      function("b-1", "eth1")},
                     true);
  const Allocation allocation("vdpa.io/nic", "/run/vdpa", devices, files);
  const PluginServer server(path, devices, order, allocation, {[] {}, [] {}, [](bool) {}});

  const auto stub = v1beta1::DevicePlugin::NewStub(
      grpc::CreateChannel("unix:" + path, grpc::InsecureChannelCredentials()));
  v1beta1::PreferredAllocationRequest request;
  auto* container = request.add_container_requests();
  for (const char* id : {"a-0", "a-1", "b-0", "b-1"}) container->add_available_deviceids(id);
  container->set_allocation_size(2);
  v1beta1::PreferredAllocationResponse response;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  const auto status = stub->GetPreferredAllocation(&context, request, &response);
  REQUIRE((status.error_message() == "" && response.container_responses_size() == 1));
  const auto& ids = response.container_responses(0).deviceids();
  return {ids.begin(), ids.end()};
}

TEST_CASE("the order of the resource decides which devices are preferred") {
  CHECK(preferred(AllocationOrder::spread) == std::vector<std::string>{"a-0", "b-0"});
  CHECK(preferred(AllocationOrder::pack) == std::vector<std::string>{"a-0", "a-1"});
}

}  // namespace
}  // namespace vdpa::plugin
