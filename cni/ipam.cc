#include "cni/ipam.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cni/error.h"
#include "cni/json_object.h"
#include "common/errors.h"
#include "common/unique_fd.h"

extern char** environ;

namespace vdpa::cni {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxOutput = 1 << 20;  // bytes

struct Pipe {
  UniqueFd read, write;
};

Pipe makePipe() {
  int ends[2];
  checked(::pipe2(ends, O_CLOEXEC), "cannot create a pipe");
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Error overDeadline(const std::string& type) {
  return Error(Code::tryAgainLater,
               fmt::format("IPAM plugin '{}' did not exit in time and was killed", type));
}

int millisecondsUntil(Clock::time_point deadline) {
  return static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count());
}

// A child that is killed with its process group and reaped unless it was waited for.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    reap();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Its status; nothing if it still runs at the deadline, even with its output closed.
  std::optional<int> wait(Clock::time_point deadline) {
    const UniqueFd process(checked(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)),
                                   "cannot watch process {}", pid_));
    for (;;) {
      const int left = millisecondsUntil(deadline);
      if (left <= 0) return std::nullopt;
      pollfd fd{process.get(), POLLIN, 0};
      if (::poll(&fd, 1, left) > 0) return reap();
    }
  }

 private:
  int reap() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

  pid_t pid_;
};

pid_t spawn(const std::string& program, const Pipe& input, const Pipe& output,
            const std::map<std::string, std::string>& changed) {
  std::vector<std::string> variables;
  for (const auto& [name, value] : changed) variables.push_back(name + "=" + value);
  for (char** variable = environ; *variable; ++variable) {
    const std::string text = *variable;
    if (!changed.contains(text.substr(0, text.find('=')))) variables.push_back(text);
  }
  std::vector<char*> environment;
  for (auto& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, input.read.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, output.write.get(), STDOUT_FILENO);
  // Its own process group, so that a kill leaves no descendants; SIGPIPE with the default action.
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t defaults;
  ::sigemptyset(&defaults);
  ::sigaddset(&defaults, SIGPIPE);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
  char* const arguments[] = {const_cast<char*>(program.c_str()), nullptr};
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, program.c_str(), &actions, &attributes, arguments, environment.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw systemError(error, "cannot run the IPAM plugin {}", program);
  return pid;
}

// Feeds `text` and collects the output, neither blocking past the deadline.
std::string exchange(Pipe& input, Pipe& output, std::string_view text, Clock::time_point deadline,
                     const std::string& type) {
  ::fcntl(input.write.get(), F_SETFL, O_NONBLOCK);
  std::string collected;
  for (;;) {
    pollfd fds[2] = {{output.read.get(), POLLIN, 0}, {input.write.get(), POLLOUT, 0}};
    const int left = millisecondsUntil(deadline);
    if (left <= 0) throw overDeadline(type);
    ::poll(fds, input.write ? 2 : 1, left);
    if (input.write && (fds[1].revents & (POLLOUT | POLLERR | POLLHUP))) {
      const ssize_t count = ::write(input.write.get(), text.data(), text.size());
      if (count > 0) text.remove_prefix(static_cast<size_t>(count));
      if (text.empty() || (count < 0 && errno != EAGAIN && errno != EINTR)) input.write.reset();
    }
    if (fds[0].revents & (POLLIN | POLLHUP)) {
      char buffer[16384];
      const ssize_t count = ::read(output.read.get(), buffer, sizeof buffer);
      if (count == 0) return collected;
      if (count > 0) collected.append(buffer, static_cast<size_t>(count));
      if (collected.size() > kMaxOutput)
        throw Error(Code::ipamFailed,
                    fmt::format("IPAM plugin '{}' printed more than {} bytes", type, kMaxOutput));
    }
  }
}

}  // namespace

Ipam::Ipam(std::string type, std::vector<std::string> path, std::string config,
           std::map<std::string, std::string> variables)
    : type_(std::move(type)),
      path_(std::move(path)),
      config_(std::move(config)),
      variables_(std::move(variables)) {}

std::string Ipam::find() const {
  for (const auto& directory : path_) {
    const std::string program = directory + "/" + type_;
    struct stat status {};
    if (::stat(program.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
        ::access(program.c_str(), X_OK) == 0)
      return program;
  }
  return "";
}

nlohmann::json Ipam::run(const std::string& command, std::chrono::milliseconds time) const {
  const std::string program = find();
  if (program.empty())
    throw Error(
        Code::invalidConfig,
        fmt::format("IPAM plugin '{}' is not in CNI_PATH ({}); install it on this node", type_,
                    path_.empty() ? "which is empty" : fmt::format("{}", fmt::join(path_, ":"))));
  Pipe input = makePipe(), output = makePipe();
  ::signal(SIGPIPE, SIG_IGN);  // a plugin may exit without reading its input
  const auto deadline = Clock::now() + time;
  auto variables = variables_;
  variables["CNI_COMMAND"] = command;
  Child child(spawn(program, input, output, variables));
  input.read.reset();
  output.write.reset();
  const std::string text = exchange(input, output, config_, deadline, type_);
  input.write.reset();  // a plugin that has answered may still read until EOF
  const std::optional<int> ended = child.wait(deadline);
  if (!ended) throw overDeadline(type_);
  const int status = *ended;

  const std::string answer = fmt::format("the answer of IPAM plugin '{}' to {}", type_, command);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    if (text.find_first_not_of(" \t\r\n") == std::string::npos) return nullptr;
    try {
      return parseObject(text, answer);
    } catch (const Error& error) {
      throw Error(Code::ipamFailed, error.what(), excerpt(text));
    }
  }
  throw failureOf(text, status);
}

// A failed plugin's error: an error object of the specification, or else its status.
Error Ipam::failureOf(const std::string& text, int status) const {
  try {
    const nlohmann::json json = parseObject(text, "the error");
    const JsonObject error(json);
    const auto code = error.number("code", 1, INT32_MAX);
    if (code)
      return Error(static_cast<int>(*code),
                   fmt::format("IPAM plugin '{}': {}", type_, excerpt(error.string("msg"), 1000)),
                   excerpt(error.string("details"), 1000));
  } catch (const Error&) {
    // Not an error object.
  }
  return Error(Code::ipamFailed,
               fmt::format("IPAM plugin '{}' exited with {} {}", type_,
                           WIFSIGNALED(status) ? "signal" : "status",
                           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
               excerpt(text));
}

}  // namespace vdpa::cni
