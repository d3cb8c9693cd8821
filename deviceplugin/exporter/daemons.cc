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

// Between attempts to connect to a daemon that is not there. Only then does the exporter wake up by
// itself.
constexpr int kFirstRetry = 100, kLastRetry = 1000;  // ms

struct Call {
  explicit Call(EventLoop& loop) : ticket(loop) {}

  EventLoop::Ticket ticket;  // first: outlives the other members
  grpc::ClientContext context;
  observe::v1::ReadRequest request;
  Observation response;
};

std::shared_ptr<grpc::Channel> channelTo(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstRetry);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLastRetry);
  arguments.SetMaxReceiveMessageSize(kMaxAnswer);
  return grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

Daemons::Daemon::Daemon(std::string path)
    : socket(std::move(path)), stub(observe::v1::Observe::NewStub(channelTo(socket))) {}

Daemons::Daemons(EventLoop& loop, const std::string& directory)
    : loop_(loop),
      plugin_(directory + "/vdpa-device-plugin.sock"),
      datapath_(directory + "/vdpa-datapath.sock") {}

void Daemons::ask(Daemon& daemon, std::function<void(std::optional<Observation>)> done) {
  const auto call = std::make_shared<Call>(loop_);
  call->context.set_deadline(std::chrono::system_clock::now() + kDeadline);
  daemon.stub->async()->Read(
      &call->context, &call->request, &call->response,
      [this, call, &daemon, done = std::move(done)](const grpc::Status& status) {
        std::optional<Observation> observation;
        if (status.ok()) observation = std::move(call->response);
        // Without the call, whose ticket returns now even if the loop has ended.
        loop_.post([&daemon, problem = status.error_message(), observation = std::move(observation),
                    done]() mutable {
          if (std::exchange(daemon.problem, problem) != problem) {
            if (problem.empty())
              log::info("{} answers", daemon.socket);
            else
              log::warn("{} does not answer: {}", daemon.socket, problem);
          }
          done(std::move(observation));
        });
      });
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
  ask(plugin_, into(&Node::plugin));
  ask(datapath_, into(&Node::datapath));
}

}  // namespace vdpa::exporter
