// Signalling an eventfd whose counter its owner fills at the worst moment.
#include "deviceplugin/datapath/worker/engines/event_fd.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "common/unique_fd.h"

using namespace vdpa;
using namespace vdpa::worker;
using namespace std::chrono_literals;

TEST_CASE("a counter that is filled between the look and the write keeps nobody waiting") {
  using Clock = std::chrono::steady_clock;
  const auto fd = std::make_shared<const UniqueFd>(::eventfd(0, EFD_CLOEXEC));  // a blocking one
  std::atomic<unsigned> calls = 0;
  std::atomic<bool> done = false, waited = false, hung = false;
  std::thread owner([&] {
    while (!done && !hung) {
      const unsigned before = calls;
      eventfd_t ignored;
      ::fcntl(fd->get(), F_SETFL, O_NONBLOCK);
      ::eventfd_read(fd->get(), &ignored);
      ::eventfd_write(fd->get(), 0xfffffffffffffffe);
      ::fcntl(fd->get(), F_SETFL, 0);
      for (const auto begin = Clock::now(); calls == before && !done;) {
        if (Clock::now() - begin > 20ms) waited = true;
        if (Clock::now() - begin > 1s) {
          hung = true;
          break;
        }
      }
    }
    eventfd_t ignored;
    ::fcntl(fd->get(), F_SETFL, O_NONBLOCK);
    ::eventfd_read(fd->get(), &ignored);  // the waiting thread continues
  });
  for (const auto end = Clock::now() + 3s; !hung && !waited && Clock::now() < end; ++calls)
    signalEvent(fd);
  ++calls;
  done = true;
  owner.join();
  CHECK_FALSE(hung);
}
