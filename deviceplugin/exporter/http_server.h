// Serves metrics over HTTP/1.1, to a network where anybody may connect.
//
// One thread serves all connections and waits for none: a client that sends half a request, or
// reads no answer, occupies a descriptor and a few KiB until its time is over, or until the
// connection is needed for another client. Requests that come while the metrics are read share that
// reading, and those that come soon after it get its text, so that no number of clients keeps the
// daemons busy.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/event_loop.h"
#include "common/unique_fd.h"

namespace vdpa::exporter {

// A listening TCP socket. `address` is HOST:PORT or [HOST]:PORT with an IP address, or :PORT for
// all of IPv6 and IPv4, or IPv4 alone on a machine without IPv6. Throws std::exception that names
// the address.
UniqueFd listenTcp(const std::string& address);

// On the loop's thread, but for the constructor and the destructor.
class HttpServer {
 public:
  struct Limits {
    size_t connections = 256;
    size_t request = 8192;                        // bytes
    std::chrono::milliseconds requestTime{5000};  // from the connection to the whole request
    std::chrono::milliseconds answerTime{10000};  // from the request to the whole answer
    std::chrono::milliseconds pause{1000};        // from a reading of the metrics to the next one
  };
  using Done = std::function<void(std::string text)>;

  // `collect` is called for GET /metrics, never again before it has called its argument, on the
  // loop's thread.
  HttpServer(EventLoop& loop, UniqueFd listener, std::function<void(Done)> collect, Limits limits);

 private:
  enum class State {
    reading,  // its request
    waiting,  // for the metrics
    writing,  // its answer
    closing,  // for the client to close: a close of ours could destroy the answer under way
  };
  struct Connection {
    Connection(EventLoop& loop, UniqueFd socket, std::function<void()> late)
        : fd(std::move(socket)), timer(loop, std::move(late)) {}
    UniqueFd fd;
    EventLoop::Watch watch;
    EventLoop::Timer timer;
    State state = State::reading;
    bool head = false;  // the method
    std::string input;
    std::shared_ptr<const std::string> output;
    size_t sent = 0;
  };
  using Id = uint64_t;  // in the order of acceptance

  void accept();
  void pause();
  bool makeRoom();
  void ready(Id id, uint32_t events);
  void read(Id id, Connection& connection);
  void handle(Id id, Connection& connection);
  void collect();
  void answer(Id id, Connection& connection, std::shared_ptr<const std::string> output);
  void write(Id id, Connection& connection);

  EventLoop& loop_;
  const UniqueFd listener_;
  const std::function<void(Done)> collect_;
  const Limits limits_;
  Id next_ = 0;
  std::map<Id, Connection> connections_;
  std::vector<Id> waiting_;  // for the reading under way
  bool collecting_ = false;
  std::shared_ptr<const std::string> last_;  // the metrics, as they were read at lastTime_
  std::chrono::steady_clock::time_point lastTime_;
  EventLoop::Watch watch_;   // of listener_
  EventLoop::Timer resume_;  // after pause()
};

}  // namespace vdpa::exporter
