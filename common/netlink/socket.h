// Speaks netlink with the kernel: one request at a time, to its acknowledgement or the end of its
// dump. Here alone it is decided which answers count and what an error is.
//
// Source: netlink(7); Documentation/userspace-api/netlink/intro.rst and net/netlink/af_netlink.c in
// Linux 6.12.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/unique_fd.h"

namespace vdpa::netlink {

// A socket of this protocol (NETLINK_ROUTE, ...) in the calling thread's network namespace, with
// these multicast groups; `flags` are those of socket(2). Throws std::system_error.
UniqueFd openSocket(int protocol, uint32_t groups = 0, int flags = 0);

// Of one thread at a time.
class Socket {
 public:
  // How long to wait for an answer. The kernel gives it before send() returns, so only a lost one
  // is waited for.
  static constexpr std::chrono::milliseconds kTimeout{5000};
  // Dumps that changed while they were made, in a row. While links come and go constantly, about
  // one in thirty does.
  static constexpr int kAttempts = 10;

  // In the calling thread's network namespace, which it stays in. Throws std::system_error.
  explicit Socket(int protocol);
  // By a connected socket that keeps datagrams whole. Throws std::system_error.
  explicit Socket(UniqueFd socket, std::chrono::milliseconds timeout = kTimeout);

  // Passes on each message of an answer, which is valid during the call only.
  using Take = std::function<void(const Message&)>;

  // Sends a request, and passes on what it answers before its acknowledgement.
  Error request(Request& request, const Take& take = {});

  // Returns a whole dump: `take(result, message)` collects it. A dump during which the listed
  // objects changed may lack some, and is made again with a new `Result`. Throws std::system_error:
  // "cannot `what`: ...".
  template <typename Result, typename Collect>
  Result dump(Request& request, const std::string& what, Collect collect) {
    for (int attempt = 1;; ++attempt) {
      Result result{};
      if (dumpOnce(request, attempt, what,
                   [&](const Message& message) { collect(result, message); }))
        return result;
    }
  }

 private:
  // False if the dump has to be made again.
  bool dumpOnce(Request& request, int attempt, const std::string& what, const Take& take);
  Error exchange(Request& request, const Take& take, bool& interrupted);
  std::pair<Error, Bytes> receive();
  bool answers(const Message& message) const;

  UniqueFd socket_;
  uint32_t port_ = 0;  // 0: not a netlink socket, which only tests have
  uint32_t sequence_ = 0;
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace vdpa::netlink
