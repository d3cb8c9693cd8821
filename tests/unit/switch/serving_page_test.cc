// The record that a crashing switch leaves behind, written by real processes that crash.
#include "common/serving_page.h"

#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;

namespace {

class Page {
 public:
  std::string control() const { return directory_.path() + "/control.sock"; }
  std::string file() const { return directory_.path() + "/control.serving"; }

  // Runs `end` in a process with a page of two pollers and eight ports. Returns the process.
  pid_t run(const std::function<void(ServingPage&)>& end) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const rlimit noCore{0, 0};
      ::setrlimit(RLIMIT_CORE, &noCore);
      ServingPage page(control(), 2, 8);
      page.name(3, "nic-2");
      page.name(7, "nic-6");
      end(page);
      ::_exit(0);
    }
    REQUIRE(::waitpid(pid, &status_, 0) == pid);
    return pid;
  }
  int signalOfEnd() const { return WIFSIGNALED(status_) ? WTERMSIG(status_) : 0; }

 private:
  TemporaryDirectory directory_;
  int status_ = 0;
};

}  // namespace

TEST_CASE_METHOD(Page, "a crash names the port and ring of the thread that crashed") {
  const int signal = GENERATE(SIGSEGV, SIGABRT, SIGILL, SIGFPE);
  const pid_t pid = run([&](ServingPage& page) {
    page.cell(0).begin(7, 5);  // another poller's, which continues
    std::thread([&] {
      noteCrashesIn(page.cell(1));
      page.cell(1).begin(3, 1);
      ::raise(signal);
    }).join();
  });
  CHECK(signalOfEnd() == signal);
  const auto crash = takeSwitchCrash(control(), pid);
  REQUIRE(crash);
  CHECK(crash->port == "nic-2");
  CHECK(crash->ring == 1);
  CHECK(crash->served);
  CHECK(crash->signal == signal);
  CHECK_FALSE(std::filesystem::exists(file()));
  CHECK_FALSE(takeSwitchCrash(control(), pid));
}

TEST_CASE_METHOD(Page, "memory that is gone and cannot be replaced is noted too") {
  const pid_t pid = run([&](ServingPage& page) {
    const MemoryGuard guard(
        MemoryGuard::Unknown::kReplacePage, [](void*, int) {}, nullptr);
    noteCrashesIn(page.cell(0));
    page.cell(0).begin(3, 0);
    ::raise(SIGBUS);  // but not for missing memory
  });
  CHECK(signalOfEnd() == SIGBUS);
  const auto crash = takeSwitchCrash(control(), pid);
  REQUIRE(crash);
  CHECK(crash->port == "nic-2");
  CHECK(crash->signal == SIGBUS);
}

TEST_CASE_METHOD(Page, "a crash between two bursts names the port that was served last") {
  const pid_t pid = run([&](ServingPage& page) {
    noteCrashesIn(page.cell(0));
    page.cell(0).begin(3, 1);
    page.cell(0).begin(7, 0);
    page.cell(0).end();
    ::raise(SIGSEGV);
  });
  const auto crash = takeSwitchCrash(control(), pid);
  REQUIRE(crash);
  CHECK(crash->port == "nic-6");
  CHECK(crash->ring == 0);
  CHECK_FALSE(crash->served);
}

TEST_CASE_METHOD(Page, "a kill for lack of memory was at the only ring that was served") {
  const bool alone = GENERATE(true, false);
  const pid_t pid = run([&](ServingPage& page) {
    page.cell(0).begin(7, 0);
    if (alone) page.cell(0).end();
    page.cell(1).begin(3, 1);
    ::raise(SIGKILL);
  });
  const auto crash = takeSwitchCrash(control(), pid, true);
  CHECK_FALSE(std::filesystem::exists(file()));
  REQUIRE(crash.has_value() == alone);
  if (!alone) return;
  CHECK(crash->port == "nic-2");
  CHECK(crash->ring == 1);
  CHECK(crash->served);
  CHECK(crash->signal == SIGKILL);
}

TEST_CASE_METHOD(Page, "a kill for lack of memory between two bursts names nobody") {
  const pid_t pid = run([&](ServingPage& page) {
    page.cell(0).begin(3, 1);
    page.cell(0).end();
    ::raise(SIGKILL);
  });
  CHECK_FALSE(takeSwitchCrash(control(), pid, true));
}

TEST_CASE_METHOD(Page, "an end that is nobody's fault names nobody") {
  const auto ends = GENERATE(values<std::function<void(ServingPage&)>>({
      [](ServingPage&) {}, [](ServingPage&) { ::raise(SIGKILL); },             // from outside
      [](ServingPage& page) { page.cell(0).begin(1, 0), ::raise(SIGSEGV); },   // without a name
      [](ServingPage& page) { page.cell(0).begin(99, 0), ::raise(SIGSEGV); },  // no such port
  }));
  const pid_t pid = run([&](ServingPage& page) {
    noteCrashesIn(page.cell(0));
    page.cell(0).begin(3, 1);
    ends(page);
  });
  CHECK_FALSE(takeSwitchCrash(control(), pid));
  CHECK_FALSE(std::filesystem::exists(file()));
}

TEST_CASE_METHOD(Page, "a page of another process, a short one and none name nobody") {
  const auto crash = [](ServingPage& page) {
    noteCrashesIn(page.cell(0));
    page.cell(0).begin(3, 1);
    ::raise(SIGSEGV);
  };
  const pid_t pid = run(crash);
  CHECK_FALSE(takeSwitchCrash(control(), pid + 1));
  CHECK(std::filesystem::exists(file()));  // its own crash is not read yet
  std::filesystem::resize_file(file(), std::filesystem::file_size(file()) - 1);
  CHECK_FALSE(takeSwitchCrash(control(), pid));
  std::ofstream(file()) << "vdpa";
  CHECK_FALSE(takeSwitchCrash(control(), pid));
  CHECK_FALSE(takeSwitchCrash(control(), pid));
  std::filesystem::create_directory(file());
  CHECK_FALSE(takeSwitchCrash(control(), pid));
}

TEST_CASE_METHOD(Page, "a name that does not fit is refused with both lengths") {
  ServingPage page(control(), 1, 2);
  CHECK_NOTHROW(page.name(1, std::string(ServingPage::kMaxName, 'n')));
  CHECK_THROWS_WITH(page.name(1, std::string(ServingPage::kMaxName + 1, 'n')),
                    Catch::Contains("has 96 bytes; at most 95 fit"));
}
