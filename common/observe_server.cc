#include "common/observe_server.h"

#include <fmt/core.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include <chrono>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/paths.h"
#include "common/version.h"
#include "observe.grpc.pb.h"

namespace vdpa {
namespace {

constexpr int kMaxThreads = 8;
constexpr int kMaxRequest = 4096;  // bytes; a request is empty
// How long a call waits for another one's end.
constexpr auto kTurn = std::chrono::seconds(1);
constexpr auto kShutdownTime = std::chrono::milliseconds(20);

}  // namespace

class ObserveServer::Service : public observe::v1::Observe::Service {
 public:
  explicit Service(ObserveServer::Read read) : read_(std::move(read)) {}

  grpc::Status Read(grpc::ServerContext*, const observe::v1::ReadRequest*,
                    observe::v1::Observation* observation) override {
    if (!begin()) return {grpc::StatusCode::UNAVAILABLE, "an earlier call is not finished"};
    grpc::Status status;
    try {
      observation->set_version(programVersion());
      read_(*observation);
    } catch (const std::exception& error) {
      status = {grpc::StatusCode::INTERNAL, error.what()};
    }
    Lock lock(mutex_);
    running_ = false;
    ended_.notifyAll();
    return status;
  }

 private:
  bool begin() {
    const auto deadline = Condition::Clock::now() + kTurn;
    Lock lock(mutex_);
    while (running_)
      if (!ended_.waitUntil(mutex_, deadline)) break;
    return !std::exchange(running_, true);
  }

  const ObserveServer::Read read_;
  Mutex mutex_;
  Condition ended_;
  bool running_ GUARDED_BY(mutex_) = false;
};

ObserveServer::ObserveServer(const std::string& directory, const std::string& name, Read read)
    : service_(std::make_unique<Service>(std::move(read))) {
  const std::string socket = fmt::format("{}/vdpa-{}.sock", directory, name);
  try {
    makeDirectory(directory, 0755);
    listen(socket);
    log::info("shows its state on {}", socket);
  } catch (const std::exception& error) {
    log::error(
        "vdpa-exporter will miss this daemon's metrics: {}; remove what is in the way of {}, "
        "then restart this daemon",
        error.what(), socket);
  }
}

void ObserveServer::listen(const std::string& socket) {
  grpc::ResourceQuota quota;
  quota.SetMaxThreads(kMaxThreads);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetMaxReceiveMessageSize(kMaxRequest);
  builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
  builder.RegisterService(service_.get());
  server_ = builder.BuildAndStart();
  if (!server_) throw std::runtime_error("cannot listen on " + socket);
  checked(::chmod(socket.c_str(), 0666), "cannot set the mode of {}", socket);
}

ObserveServer::~ObserveServer() {
  if (server_) server_->Shutdown(std::chrono::system_clock::now() + kShutdownTime);
}

}  // namespace vdpa
