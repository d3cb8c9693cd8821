// A minimal C++ device plugin, with a fixed list and an Allocate that checks nothing: the reference
// for vdpa-device-plugin's Allocate.
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

#include "deviceplugin.grpc.pb.h"

namespace {

class FloorPlugin final : public v1beta1::DevicePlugin::Service {
 public:
  explicit FloorPlugin(int devices) {
    for (int i = 0; i < devices; ++i) {
      auto* device = list_.add_devices();
      device->set_id("nic-" + std::to_string(i));
      device->set_health("Healthy");
    }
  }

  grpc::Status GetDevicePluginOptions(grpc::ServerContext*, const v1beta1::Empty*,
                                      v1beta1::DevicePluginOptions*) override {
    return grpc::Status::OK;
  }

  grpc::Status ListAndWatch(grpc::ServerContext* context, const v1beta1::Empty*,
                            grpc::ServerWriter<v1beta1::ListAndWatchResponse>* writer) override {
    writer->Write(list_);
    std::unique_lock lock(mutex_);
    while (!context->IsCancelled()) wake_.wait_for(lock, std::chrono::milliseconds(100));
    return grpc::Status::OK;
  }

  grpc::Status Allocate(grpc::ServerContext*, const v1beta1::AllocateRequest* request,
                        v1beta1::AllocateResponse* response) override {
    for (const auto& container : request->container_requests()) {
      auto* answer = response->add_container_responses();
      const auto& id = container.devices_ids(0);
      (*answer->mutable_envs())["DEVICE"] = id;
      auto* mount = answer->add_mounts();
      mount->set_container_path("/run/vdpa/" + id);
      mount->set_host_path("/run/vdpa/devices/" + id);
    }
    return grpc::Status::OK;
  }

 private:
  v1beta1::ListAndWatchResponse list_;
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "floor-plugin KUBELET-DIRECTORY DEVICES\n"), 2;
  const std::string directory = argv[1];
  sigset_t stop;
  ::sigemptyset(&stop);
  ::sigaddset(&stop, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &stop, nullptr);

  FloorPlugin plugin(std::atoi(argv[2]));
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + directory + "/floor.sock", grpc::InsecureServerCredentials());
  builder.RegisterService(&plugin);
  const auto server = builder.BuildAndStart();

  const auto kubelet = v1beta1::Registration::NewStub(grpc::CreateChannel(
      "unix:" + directory + "/kubelet.sock", grpc::InsecureChannelCredentials()));
  v1beta1::RegisterRequest request;
  request.set_version("v1beta1");
  request.set_endpoint("floor.sock");
  request.set_resource_name("example.com/floor");
  v1beta1::Empty answer;
  grpc::ClientContext context;
  if (!kubelet->Register(&context, request, &answer).ok()) return 1;

  int signal = 0;
  ::sigwait(&stop, &signal);
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}
