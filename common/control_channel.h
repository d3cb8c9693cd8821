// The protocol between vdpa-datapath and the processes that it supervises (workers, switches,
// vdpa-pmds): one JSON object per line over a unix stream socket.
//
//   request   {"id": 7, "op": "add_port", "args": {...}}
//   answer    {"id": 7, "ok": {...}}  or  {"id": 7, "error": "..."}
//   event     {"event": "engine", ...}            from the server, at any time, to every client
//
// The sockets belong to root, below /run/vdpa: each side checks only size and syntax of the other's
// messages. Every server answers "hello" with {"program", "version", "pid", ...}. The end of the
// connection means that the process has died, for children and adopted processes alike.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "common/event_loop.h"
#include "common/json.h"
#include "common/task.h"
#include "common/unique_fd.h"

namespace vdpa {

// The supervised process's side, for a single-threaded epoll or poll loop.
class ControlServer {
 public:
  // Answers one request; a thrown std::exception becomes the answer's error.
  using Handler = std::function<nlohmann::json(const std::string& op, const nlohmann::json& args)>;

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
  void broadcast(const nlohmann::json& event);

 private:
  struct Client {
    UniqueFd fd;
    std::string input;
    std::string output;
  };
  void acceptClients();
  bool serve(Client& client);                                // false: drop the client
  bool send(Client& client, const nlohmann::json& message);  // false: drop the client
  bool flush(Client& client);
  nlohmann::json answer(const std::string& line);

  std::string path_;
  Handler handler_;
  UniqueFd epoll_;
  UniqueFd listener_;
  std::map<int, Client> clients_;
};

// vdpa-datapath's side, on a loop's thread.
class ControlClient {
 public:
  using EventHandler = std::function<void(const nlohmann::json& event)>;
  using ClosedHandler = std::function<void()>;

  // Connects; throws std::system_error. Calls `onClosed` once, when the other side is gone; neither
  // callback may destroy the client.
  ControlClient(EventLoop& loop, const std::string& path, EventHandler onEvent,
                ClosedHandler onClosed);
  ~ControlClient();
  ControlClient(const ControlClient&) = delete;
  ControlClient& operator=(const ControlClient&) = delete;

  // The answer's "ok". Throws std::runtime_error with the answer's error, or std::system_error if
  // the other side is gone (ECONNRESET) or silent (ETIMEDOUT). Any number of calls may be pending;
  // they are answered in order. The client must outlive them.
  Task<nlohmann::json> call(std::string op, nlohmann::json args = nlohmann::json::object(),
                            std::chrono::milliseconds timeout = std::chrono::seconds(5));
  // The number of answers received so far: an event is newer than these.
  uint64_t answers() const { return answers_; }

 private:
  struct Pending {
    Notification changed;
    nlohmann::json answer;  // null until it arrives
  };
  void onReady(uint32_t events);
  void read();
  void flush();
  void close();
  void dispatch(const std::string& line);

  EventLoop& loop_;
  const std::string path_;
  const EventHandler onEvent_;
  const ClosedHandler onClosed_;
  UniqueFd fd_;
  std::string input_, output_;
  std::map<int64_t, Pending*> pending_;  // by the request's id
  int64_t nextId_ = 1;
  uint64_t answers_ = 0;
  bool closed_ = false;
  EventLoop::Watch watch_;
};

// Sends one request on its own connection, for callers without a loop. Throws like ControlClient.
nlohmann::json askOnce(const std::string& path, const std::string& op,
                       const nlohmann::json& args = nlohmann::json::object(),
                       std::chrono::milliseconds timeout = std::chrono::seconds(5));

}  // namespace vdpa
