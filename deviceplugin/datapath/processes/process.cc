#include "deviceplugin/datapath/processes/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa::datapath {
namespace {

constexpr auto kVersionTime = std::chrono::seconds(5);

UniqueFd openPid(pid_t pid) {
  return UniqueFd(
      checked(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)), "cannot open process {}", pid));
}

class SpawnSettings {
 public:
  SpawnSettings(int inherited, int output) {
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawn_file_actions_init(&actions_);
    sigset_t none, handled;
    sigemptyset(&none);
    sigfillset(&handled);
    // Stays ignored: the log's reader may end before the process does.
    sigdelset(&handled, SIGPIPE);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &handled);
    ::posix_spawnattr_setflags(&attributes_,
                               POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    ::posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (output >= 0) ::posix_spawn_file_actions_adddup2(&actions_, output, STDOUT_FILENO);
    int unused = STDERR_FILENO + 1;
    if (inherited >= 0) ::posix_spawn_file_actions_adddup2(&actions_, inherited, unused++);
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, unused);
  }
  ~SpawnSettings() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  const posix_spawnattr_t* attributes() const { return &attributes_; }
  const posix_spawn_file_actions_t* actions() const { return &actions_; }

 private:
  posix_spawnattr_t attributes_;
  posix_spawn_file_actions_t actions_;
};

std::string describe(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return fmt::format("exited with status {}", info.si_status);
  return fmt::format("killed by signal {} ({})", info.si_status, ::strsignal(info.si_status));
}

}  // namespace

Process Process::start(const std::vector<std::string>& arguments, int inherited, int output) {
  std::vector<char*> argv;
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const SpawnSettings settings(inherited, output);
  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, argv[0], settings.actions(), settings.attributes(), argv.data(), environ);
  if (error != 0) throw systemError(error, "cannot start {}", arguments[0]);
  return Process(pid, openPid(pid));
}

Process Process::adopt(pid_t pid) {
  return Process(pid, openPid(pid));
}

void Process::kill() {
  if (!ended_) ::syscall(SYS_pidfd_send_signal, fd_.get(), SIGKILL, nullptr, 0);
}

bool Process::waitEnd(std::chrono::microseconds timeout) {
  if (ended_) return true;
  pollfd ended{fd_.get(), POLLIN, 0};
  const auto seconds = std::chrono::floor<std::chrono::seconds>(timeout);
  const timespec time{seconds.count(), std::chrono::nanoseconds(timeout - seconds).count()};
  if (::ppoll(&ended, 1, &time, nullptr) <= 0) return false;
  siginfo_t info{};
  // ECHILD: it was adopted; its parent gets its status.
  if (::waitid(P_PIDFD, static_cast<id_t>(fd_.get()), &info, WEXITED) == 0) {
    ending_ = describe(info);
    killed_ = info.si_code != CLD_EXITED && info.si_status == SIGKILL;
  }
  ended_ = true;
  return true;
}

std::string findProgram(const std::string& name, const std::vector<std::string>& directories) {
  for (const auto& directory : directories) {
    std::string path = directory + "/" + name;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  throw std::runtime_error(fmt::format("cannot find the program {} in {}; see --worker-dir", name,
                                       fmt::join(directories, ", ")));
}

std::string versionOf(const std::string& program) {
  int ends[2];
  checked(::pipe2(ends, O_CLOEXEC), "cannot make a pipe");
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  Process process = Process::start({program, "--version"}, -1, writer.get());
  writer.reset();
  if (!process.waitEnd(kVersionTime)) {
    process.kill();
    process.waitEnd(kVersionTime);
    throw std::runtime_error(fmt::format("{} --version: no answer", program));
  }
  char text[64];  // far less than a pipe holds, so the program never waited
  const auto size = ::read(reader.get(), text, sizeof text);
  std::string version(text, static_cast<size_t>(std::max<ssize_t>(0, size)));
  version.erase(std::min(version.size(), version.find_first_of("\r\n")));
  if (version.empty())
    throw std::runtime_error(
        fmt::format("{} --version: {} without an answer", program, process.ending()));
  return version;
}

}  // namespace vdpa::datapath
