#include "deviceplugin/exporter/daemons.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/event_loop.h"
#include "common/log.h"
#include "observe.grpc.pb.h"
#include "observe.pb.h"

namespace vdpa::exporter {
namespace {

using observe::v1::Observation;

constexpr auto kDeadline = std::chrono::seconds(2);
// A node with a thousand attached devices has a few hundred KiB.
constexpr int kMaxAnswer = 64 << 20;

struct Call {
  explicit Call(EventLoop& loop) : ticket(loop) {}

  EventLoop::Ticket ticket;  // first: outlives the other members
  std::unique_ptr<observe::v1::Observe::Stub> stub;
  grpc::ClientContext context;
  observe::v1::ReadRequest request;
  Observation response;
};

}  // namespace

Daemons::Daemons(EventLoop& loop, std::string directory)
    : loop_(loop), directory_(std::move(directory)) {}

// On a connection of its own: one that is kept waits before it tries again after its daemon was
// restarted.
void Daemons::ask(const std::string& daemon, std::function<void(std::optional<Observation>)> done) {
  const std::string socket = directory_ + "/" + daemon + ".sock";
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(kMaxAnswer);
  const auto call = std::make_shared<Call>(loop_);
  call->stub = observe::v1::Observe::NewStub(
      grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
  call->context.set_deadline(std::chrono::system_clock::now() + kDeadline);
  call->stub->async()->Read(
      &call->context, &call->request, &call->response,
      [this, call, socket, done = std::move(done)](const grpc::Status& status) {
        std::optional<Observation> observation;
        if (status.ok()) observation = std::move(call->response);
        // Without the call, whose ticket returns now even if the loop has ended.
        loop_.post([this, socket, problem = status.error_message(),
                    observation = std::move(observation), done]() mutable {
          report(socket, problem);
          done(std::move(observation));
        });
      });
}

void Daemons::report(const std::string& socket, const std::string& problem) {
  if (std::exchange(problems_[socket], problem) == problem) return;
  if (problem.empty())
    log::info("{} answers", socket);
  else
    log::warn("{} does not answer: {}", socket, problem);
}

void Daemons::read(std::function<void(Node)> done) {
  struct Answers {
    Node node;
    int missing = 2;
    std::function<void(Node)> done;
  };
  const auto answers = std::make_shared<Answers>();
  answers->done = std::move(done);
  const auto into = [answers](std::optional<Observation> Node::*daemon) {
    return [answers, daemon](std::optional<Observation> observation) {
      answers->node.*daemon = std::move(observation);
      if (--answers->missing == 0) answers->done(std::move(answers->node));
    };
  };
  ask("device-plugin", into(&Node::plugin));
  ask("datapath", into(&Node::datapath));
}

}  // namespace vdpa::exporter
