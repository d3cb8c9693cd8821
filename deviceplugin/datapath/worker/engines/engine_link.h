// One connection to the engine's socket: sends any number of requests and receives their answers in
// order.
#pragma once

#include <deque>
#include <functional>

#include "common/event_loop.h"
#include "deviceplugin/datapath/vhost_user/message_socket.h"

namespace vdpa::worker {

class EngineLink {
 public:
  using Answered = std::function<void(const vhost_user::Message& answer)>;
  // `refused`: the engine is up, but refused a request.
  using Lost = std::function<void(const std::string& reason, bool refused)>;
  using Idle = std::function<void()>;

  // `lost` is called once, from the loop, when the engine closes the connection, sends an invalid
  // answer or leaves a request unanswered for too long. `idle` is called when the last open request
  // has been answered. Both may destroy the link.
  EngineLink(EventLoop& loop, UniqueFd socket, Lost lost, Idle idle);
  ~EngineLink();
  EngineLink(const EngineLink&) = delete;
  EngineLink& operator=(const EngineLink&) = delete;

  // Sends a request that is answered; the answer has exactly `answerSize` bytes of payload.
  void ask(vhost_user::Request request, const void* payload, size_t size, size_t answerSize,
           Answered answered);
  // Sends a request without an answer.
  void tell(vhost_user::Request request, const void* payload, size_t size,
            std::vector<vhost_user::SharedFd> descriptors = {});
  // Sends a request whose success the engine acknowledges; a refusal ends the link.
  void set(vhost_user::Request request, const void* payload, size_t size,
           std::vector<vhost_user::SharedFd> descriptors);

  bool idle() const { return open_.empty(); }

 private:
  struct Open {
    vhost_user::Request request;
    size_t answerSize;
    Answered answered;
  };

  void send(vhost_user::Request request, uint32_t flags, const void* payload, size_t size,
            std::vector<vhost_user::SharedFd> descriptors);
  void onEvent(uint32_t events);
  void onAnswer(const vhost_user::Message& answer);
  void startDeadline();
  void fail(std::string reason, bool refused = false);

  vhost_user::MessageSocket socket_;
  const Lost lost_;
  const Idle idle_;
  std::deque<Open> open_;
  EventLoop::Watch watch_;  // empty once it has failed
  EventLoop::Timer deadline_;
  std::string failure_;
  bool refused_ = false;
  EventLoop::Timer failing_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace vdpa::worker
