// Connecting to a listener while others are in its queue.
#include "common/unix_socket.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "common/unique_fd.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace std::chrono_literals;

namespace {

int errorOf(const std::string& path, std::chrono::milliseconds timeout = 0ms) {
  try {
    connectUnix(path, timeout);
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

// Fills the listener's queue.
std::vector<UniqueFd> fill(const std::string& path) {
  std::vector<UniqueFd> queued;
  try {
    for (;;) queued.push_back(connectUnix(path));
  } catch (const std::system_error& error) {
    REQUIRE(error.code().value() == EAGAIN);
  }
  return queued;
}

}  // namespace

TEST_CASE("a connection waits for room as long as its timeout") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/x.sock";
  const UniqueFd listener = listenUnix(path, 0600);
  const auto queued = fill(path);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(errorOf(path, 200ms) == EAGAIN);
  CHECK(std::chrono::steady_clock::now() - begin >= 200ms);

  std::thread server([&] { UniqueFd(::accept(listener.get(), nullptr, nullptr)); });
  const UniqueFd connected = connectUnix(path, 30s);
  server.join();
  CHECK((::fcntl(connected.get(), F_GETFL) & O_NONBLOCK) != 0);
}

TEST_CASE("timeout is for a queue alone") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/x.sock";
  CHECK(errorOf(path, 30s) == ENOENT);
  listenUnix(path, 0600);  // and closed
  CHECK(errorOf(path, 30s) == ECONNREFUSED);
}
