// The protocol between vdpa-datapath and the processes that it supervises (workers, switches,
// vdpa-pmds): requests, answers and events of common/proto/control.proto over a unix stream socket,
// in frames of protobuf or, with a process or a datapath of release 0.1.0, in lines of JSON
// (control_stream.h, control_json.h).
//
// A process answers each request in the form that it came in, and sends its events in the form of
// the connection's last request, before the first one as lines. So no side has to know the other's
// release: the datapath begins with a frame to a process that it has started itself, and with a
// line to one that it found. If that one's answer to "hello" says that it understands frames, the
// datapath goes on with these.
//
// The sockets belong to root, below /run/vdpa: each side checks only size and syntax of the other's
// messages. The end of the connection means that the process has died, for children and adopted
// processes alike.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "common/control_stream.h"
#include "common/event_loop.h"
#include "common/task.h"
#include "common/unique_fd.h"
#include "control.pb.h"

namespace vdpa {

// The supervised process's side, for a single-threaded epoll or poll loop.
class ControlServer {
 public:
  // Answers one request, whose operation is always set: fills in the result, if there is anything
  // to tell; a thrown std::exception becomes the answer's error. The descriptors that came with
  // the request are closed unless it takes them.
  using Handler =
      std::function<control::Answer(const control::Request& request, Descriptors& descriptors)>;

  // Listens at `path` (mode 0600), or uses the socket `inherited`, which this process's parent has
  // already bound and made listen there; the caller keeps its ownership. The destructor removes the
  // file.
  ControlServer(std::string path, Handler handler, int inherited = -1);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Readable whenever process() has work.
  int fd() const { return epoll_.get(); }
  // Accepts, reads and answers; never blocks.
  void process();
  // Sends `event` to every client. A client that doesn't read is dropped.
  void broadcast(const control::Event& event);

 private:
  struct Client {
    ControlStream stream;
    ControlStream::Format format = ControlStream::Format::line;  // of its last request
  };
  void acceptClients();
  // False: drop the client.
  bool serve(Client& client, uint32_t events);
  void answer(Client& client, ControlStream::Message request);
  void send(Client& client, const control::FromProcess& message);
  void watch(const Client& client);
  void noteDropped(const std::exception& reason) const;

  std::string path_;
  Handler handler_;
  UniqueFd epoll_;
  UniqueFd listener_;
  std::map<int, Client> clients_;
};

// vdpa-datapath's side, on a loop's thread.
class ControlClient {
 public:
  using EventHandler = std::function<void(const control::Event& event)>;
  using ClosedHandler = std::function<void()>;
  // What is known of the process.
  enum class Peer {
    started,  // by this program: it understands frames
    found,    // it may be of release 0.1.0
  };

  // Connects; throws std::system_error. Calls `onClosed` once, when the other side is gone or
  // breaks the protocol; neither callback may destroy the client.
  ControlClient(EventLoop& loop, const std::string& path, Peer peer, EventHandler onEvent,
                ClosedHandler onClosed);
  ~ControlClient();
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // The answer to `request`, whose id is set here. Throws std::runtime_error with the answer's
  // error, or if `descriptors` can't be sent, since the process is of 0.1.0; std::system_error if
  // the other side is gone (ECONNRESET), does not read (ENOBUFS) or is silent (ETIMEDOUT). Any
  // number of calls may be pending; they are answered in order. The client must outlive them.
  Task<control::Answer> call(control::Request request,
                             std::chrono::milliseconds timeout = std::chrono::seconds(5),
                             Descriptors descriptors = {});
  // The number of answers received so far: an event is newer than these.
  uint64_t answers() const { return answers_; }

 private:
  struct Pending {
    control::Request::OperationCase operation;
    Notification changed;
    control::Answer answer;
    bool answered = false;
  };
  void onReady(uint32_t events);
  void receive();
  void close();
  void dispatch(const ControlStream::Message& message);
  void take(control::FromProcess message);
  void watchUnsent();

  EventLoop& loop_;
  const std::string path_;
  const EventHandler onEvent_;
  const ClosedHandler onClosed_;
  ControlStream stream_;
  ControlStream::Format format_;
  std::map<int64_t, Pending*> pending_;  // by the request's id
  int64_t nextId_ = 1;
  uint64_t answers_ = 0;
  bool closed_ = false;
  EventLoop::Watch watch_;
};

// Sends one request on its own connection, as a line, since any release may be there. For callers
// without a loop. Throws like ControlClient.
control::Answer askOnce(const std::string& path, control::Request request,
                        std::chrono::milliseconds timeout = std::chrono::seconds(5));

// Requests without arguments.
control::Request helloRequest();
control::Request stopRequest();

}  // namespace vdpa
