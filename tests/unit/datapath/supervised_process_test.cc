// The life of a supervised process: started, killed, adopted, stopped, and one that can't start.
#include "deviceplugin/datapath/processes/supervised_process.h"

#include <catch2/catch.hpp>
#include <fmt/format.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/control_channel.h"
#include "common/control_lock.h"
#include "common/event_thread.h"
#include "common/task.h"
#include "common/unix_socket.h"
#include "deviceplugin/datapath/processes/process.h"
#include "tests/unit/datapath/control_program_path.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace vdpa::datapath;
using namespace std::chrono_literals;

namespace {

auto soon() {
  return std::chrono::steady_clock::now() + 10s;
}

template <typename Condition>
bool eventually(Condition condition) {
  for (const auto deadline = soon(); std::chrono::steady_clock::now() < deadline;
       std::this_thread::sleep_for(1ms))
    if (condition()) return true;
  return false;
}

SupervisedProcess::Plan plan(const TemporaryDirectory& directory, const std::string& name = "x") {
  const std::string control = directory.path() + "/c.sock";
  return {"the program",
          {controlProgram(), "--name=" + name, "--control=" + control, "--queue-pairs=1",
           "--mtu=1500", "--uplink="},
          control};
}

// Not of the whole program: other tests fork, which the thread sanitizer allows to one thread only.
struct Supervision {
  EventThread thread;
};

bool runs(int pid) {
  return ::kill(pid, 0) == 0;
}

}  // namespace

TEST_CASE_METHOD(Supervision,
                 "a process is started again when it dies, and found again by the next owner") {
  const TemporaryDirectory directory;
  std::atomic<int> ups = 0;
  const SupervisedProcess::Handlers handlers{
      [&](SupervisedProcess& process, control::HelloAnswer hello) -> Task<void> {
        const auto again = co_await process.ask(helloRequest());
        CHECK(again.hello().SerializeAsString() == hello.SerializeAsString());
        ++ups;
      },
      nullptr, nullptr};
  pid_t pid = 0;
  {
    SupervisedProcess process(thread, plan(directory), handlers);
    REQUIRE(process.waitUp(soon()));
    const pid_t first = process.status().pid;
    ::kill(first, SIGKILL);
    REQUIRE(eventually([&] { return process.status().up && process.status().pid != first; }));
    CHECK(process.status().deaths == 1);
    CHECK_FALSE(process.status().found);
    CHECK(ups == 2);
    pid = process.status().pid;
  }
  CHECK(runs(pid));  // no supervisor watches it
  SupervisedProcess again(thread, plan(directory), handlers);
  REQUIRE(again.waitUp(soon()));
  CHECK(again.status().pid == pid);
  CHECK(again.status().found);
  CHECK(again.status().version.empty());  // it reports none
  CHECK(again.status().deaths == 0);
  again.stop();
  CHECK(eventually([&] { return !runs(pid); }));
  CHECK_FALSE(std::filesystem::exists(directory.path() + "/c.sock"));
  CHECK_THROWS_AS(again.call(helloRequest()), NoAnswer);
}

TEST_CASE_METHOD(
    Supervision,
    "a process that doesn't answer yet is found by its lock, and none is started beside it") {
  const TemporaryDirectory directory;
  const auto slow = plan(directory, "slow");
  pid_t pid = 0;
  {
    const SupervisedProcess process(thread, slow, {});
    REQUIRE(eventually([&] { return lockHolder(slow.control) != 0; }));
    REQUIRE(eventually([&] { return process.status().pid != 0; }));
    pid = process.status().pid;
    CHECK(lockHolder(slow.control) == pid);
  }
  SupervisedProcess again(thread, slow, {});
  REQUIRE(eventually([&] { return again.status().pid != 0; }));
  CHECK(again.status().pid == pid);
  std::ofstream(slow.control + ".go") << "";
  REQUIRE(again.waitUp(soon()));
  CHECK(again.status().pid == pid);
  CHECK(again.status().deaths == 0);
  again.stop();
  CHECK(eventually([&] { return !runs(pid); }));
  CHECK_FALSE(std::filesystem::exists(directory.path() + "/c.lock"));
}

TEST_CASE_METHOD(
    Supervision,
    "a process that was started this moment is waited for, and none is started beside it") {
  const TemporaryDirectory directory;
  const auto late = plan(directory, "late");  // it takes its lock after a while
  auto arguments = late.arguments;
  arguments.push_back("--control-fd=3");
  Process first = Process::start(arguments, listenUnix(late.control, 0600).get());
  CHECK(lockHolder(late.control) == 0);
  SECTION("by who needs it") {
    SupervisedProcess process(thread, late, {});
    REQUIRE(process.waitUp(soon()));
    CHECK(process.status().pid == first.pid());
    CHECK(process.status().found);
    process.stop();
  }
  SECTION("by who ends it") {
    CHECK(stopStray(late.control));
  }
  CHECK(first.waitEnd(10s));
  CHECK(lockHolder(late.control) == 0);
}

TEST_CASE_METHOD(
    Supervision,
    "one that came up while another could not start is taken over, out of its container too") {
  const TemporaryDirectory directory;
  const std::string moved = directory.path() + "/cgroup/vdpa/cgroup.procs";
  std::filesystem::create_directories(directory.path() + "/cgroup/vdpa");
  std::ofstream(directory.path() + "/cgroup/cgroup.procs") << "";
  std::ofstream(moved) << "";
  auto failing = plan(directory, "exits");
  failing.cgroupRoot = directory.path() + "/cgroup";
  SupervisedProcess process(thread, failing, {});
  REQUIRE_FALSE(process.waitUp(soon(), true));
  const Process other = Process::start(plan(directory).arguments);
  REQUIRE(process.waitUp(soon()));
  CHECK(process.status().pid == other.pid());
  CHECK(process.status().found);
  CHECK_THAT(readFile(moved), Catch::EndsWith(std::to_string(other.pid())));
  process.stop();
}

TEST_CASE_METHOD(Supervision, "none is started beside one that can't be looked at") {
  const TemporaryDirectory directory;
  auto wanted = plan(directory);
  const std::string started = directory.path() + "/started";
  wanted.arguments = {"/usr/bin/touch", started};
  UniqueFd listener = listenUnix(wanted.control, 0600);
  REQUIRE(::listen(listener.get(), 0) == 0);
  const UniqueFd queued = connectUnix(wanted.control);  // no further one fits
  CHECK_THROWS_WITH(listenUnix(wanted.control, 0600), Catch::Contains("cannot connect to"));
  SupervisedProcess process(thread, wanted, {});
  REQUIRE(eventually([&] { return process.status().deaths >= 2; }));
  CHECK_THAT(process.status().reason, Catch::Contains("cannot connect to " + wanted.control +
                                                      ": Resource temporarily unavailable"));
  CHECK_FALSE(std::filesystem::exists(started));
  CHECK(std::filesystem::exists(wanted.control));
  listener.reset();
  process.stop();
}

TEST_CASE_METHOD(Supervision,
                 "a stopped process leaves none behind that it found there before itself") {
  const TemporaryDirectory directory;
  SupervisedProcess process(thread, plan(directory, "exits"), {});
  REQUIRE_FALSE(process.waitUp(soon(), true));
  Process other = Process::start(plan(directory, "slow").arguments);
  REQUIRE(eventually([&] { return lockHolder(plan(directory).control) == other.pid(); }));
  process.stop();
  CHECK(other.waitEnd(10s));
}

TEST_CASE_METHOD(Supervision,
                 "a process that cannot start says why, and can be stopped between two tries") {
  const TemporaryDirectory directory;
  SupervisedProcess process(thread, plan(directory, "exits"), {});
  CHECK_FALSE(process.waitUp(soon(), true));
  REQUIRE(eventually([&] { return process.status().deaths >= 3; }));
  CHECK_THAT(process.status().reason,
             Catch::StartsWith("the program is not running: exited with status 7"));
  process.stop();
  CHECK_FALSE(process.status().up);
}

// A process with a traced thread has not ended until its tracer has seen that thread's end, even if
// it was killed: it stands for a process that hangs in the kernel.
TEST_CASE_METHOD(
    Supervision,
    "a process that doesn't end by force isn't stopped, and none is started beside it") {
  const TemporaryDirectory directory;
  auto wanted = plan(directory, "threads");
  wanted.stopTime = 50ms;
  SupervisedProcess process(thread, wanted, {});
  REQUIRE(process.waitUp(soon()));
  const pid_t pid = process.status().pid;
  pid_t thread = 0;
  for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid)))
    thread = std::max(thread, std::stoi(task.path().filename()));
  REQUIRE(thread != pid);
  REQUIRE(::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) == 0);
  const std::string hangs = fmt::format("process {} does not end, though it was killed", pid);

  ::kill(pid, SIGKILL);
  REQUIRE(eventually([&] { return process.status().deaths >= 2; }));
  CHECK_THAT(process.status().reason, Catch::Contains(hangs));
  CHECK_THROWS_WITH(process.stop(), Catch::Contains(hangs));
  CHECK_THROWS_WITH(process.stop(), Catch::Contains(hangs));
  CHECK(std::filesystem::exists(wanted.control));

  REQUIRE(::waitpid(thread, nullptr, __WALL) == thread);
  process.stop();
  CHECK_FALSE(std::filesystem::exists(wanted.control));
  CHECK_FALSE(runs(pid));
}

TEST_CASE_METHOD(Supervision, "a process that is too slow for a short question is not silent") {
  const TemporaryDirectory directory;
  SupervisedProcess process(thread, plan(directory), {});
  REQUIRE(process.waitUp(soon()));
  const pid_t pid = process.status().pid;
  ::kill(pid, SIGSTOP);
  CHECK_THROWS_AS(process.call(helloRequest(), 20ms), NoAnswer);
  // This one is asked too, instead of being refused for everybody until it has answered.
  CHECK_THROWS_WITH(process.call(helloRequest(), 20ms), !Catch::Contains("has not answered for"));
  ::kill(pid, SIGCONT);
  CHECK(process.call(helloRequest(), 5s).hello().pid() == pid);
  process.stop();
}

TEST_CASE("a program's version") {
  const TemporaryDirectory directory;
  const std::string program = directory.path() + "/program";
  const auto write = [&](const std::string& text) {
    std::ofstream(program) << "#!/bin/sh\n" << text << "\n";
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  };
  write("[ $1 = --version ] && echo 1.2.3 && echo more");
  CHECK(versionOf(program) == "1.2.3");
  write("exit 4");
  CHECK_THROWS_WITH(versionOf(program), Catch::Contains("program --version: exited with status 4"));
  CHECK_THROWS_WITH(versionOf(directory.path() + "/none"), Catch::Contains("/none: No such file"));
}

TEST_CASE_METHOD(Supervision, "a program that is not there") {
  const TemporaryDirectory directory;
  auto missing = plan(directory);
  missing.arguments[0] = directory.path() + "/none";
  SupervisedProcess process(thread, missing, {});
  CHECK_FALSE(process.waitUp(soon(), true));
  CHECK_THAT(process.status().reason, Catch::Contains("/none: No such file or directory"));
  CHECK_THROWS_WITH(findProgram("none", {"/a", "/b"}), Catch::Contains("none in /a, /b"));
}

TEST_CASE_METHOD(Supervision, "a stray process is ended, and a stray socket removed") {
  const TemporaryDirectory directory;
  const std::string control = directory.path() + "/c.sock";
  pid_t pid = 0;
  {
    SupervisedProcess process(thread, plan(directory), {});
    REQUIRE(process.waitUp(soon()));
    pid = process.status().pid;
  }
  stopStray(control);
  CHECK(eventually([&] { return !runs(pid); }));
  CHECK_FALSE(std::filesystem::exists(control));
  stopStray(control);  // no file exists
}

TEST_CASE_METHOD(
    Supervision,
    "a process that the kernel ends for lack of memory says so, and which pod it served") {
  const TemporaryDirectory directory;
  const std::string root = directory.path() + "/cgroup";
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(root + "/" + name) << text;
  };
  const auto kills = [&](int count) {
    write("vdpa/memory.events", fmt::format("oom 0\noom_kill {}\n", count));
  };
  std::filesystem::create_directories(root + "/vdpa");
  write("cgroup.procs", "");
  write("vdpa/cgroup.procs", "");
  write("vdpa/memory.current", "262144000");
  write("vdpa/memory.max", "268435456");
  kills(3);  // earlier ones

  auto limited = plan(directory);
  limited.cgroupRoot = root;
  limited.serves = "default/app";
  std::mutex mutex;
  std::vector<std::pair<std::string, bool>> ends;
  SupervisedProcess* self = nullptr;
  SupervisedProcess process(thread, limited,
                            {nullptr, nullptr, nullptr, [&](pid_t, bool outOfMemory) {
                               std::lock_guard lock(mutex);
                               ends.emplace_back(self->status().reason, outOfMemory);
                               return true;
                             }});
  self = &process;
  const auto end = [&](size_t number, int signal) {
    REQUIRE(process.waitUp(soon()));
    ::kill(process.status().pid, signal);
    REQUIRE(eventually([&] {
      std::lock_guard lock(mutex);
      return ends.size() == number;
    }));
    std::lock_guard lock(mutex);
    return ends.back();
  };

  const auto killed = end(1, SIGKILL);  // by an operator
  CHECK_FALSE(killed.second);
  CHECK_THAT(killed.first, Catch::Contains("killed by signal 9") && !Catch::Contains("memory"));

  REQUIRE(eventually([&] { return process.status().up; }));
  kills(4);
  const auto ended = end(2, SIGKILL);
  CHECK(ended.second);
  CHECK_THAT(ended.first,
             Catch::Contains("for lack of memory: workers and switches have 250 of at "
                             "most 256 MiB together, and this one serves default/app"));

  REQUIRE(eventually([&] { return process.status().up; }));
  kills(5);  // another process; this one has a bug of its own
  const auto crashed = end(3, SIGSEGV);
  CHECK_FALSE(crashed.second);
  CHECK_THAT(crashed.first, !Catch::Contains("memory"));
  process.stop();
}
