#include "deviceplugin/ctl/doctor/probes.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "common/unique_fd.h"
#include "deviceplugin/ctl/doctor/checks.h"

namespace vdpa::ctl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kTimeout = std::chrono::seconds(2);
constexpr size_t kMaxVersion = 100;  // bytes

std::optional<Probes::Space> spaceOf(const std::string& path) {
  struct statvfs found {};
  if (::statvfs(path.c_str(), &found) < 0) return std::nullopt;
  const uint64_t free = uint64_t{found.f_bavail} * found.f_frsize;
  return Probes::Space{free, found.f_files == 0 ? free : found.f_favail,
                       (found.f_flag & ST_RDONLY) != 0};
}

// Up to the end of the output, the limit or the deadline.
std::string readSome(int fd) {
  std::string text;
  for (const auto deadline = Clock::now() + kTimeout; text.size() < kMaxVersion;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd wanted{fd, POLLIN, 0};
    if (left.count() <= 0 || ::poll(&wanted, 1, static_cast<int>(left.count())) <= 0) break;
    std::array<char, kMaxVersion> buffer{};
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count <= 0) break;
    text.append(buffer.data(), static_cast<size_t>(count));
  }
  return text;
}

std::string versionOf(const std::string& program) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return "";
  UniqueFd output(ends[0]), input(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, input.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // a group of its own
  std::string name = program, flag = "--version";
  char* arguments[] = {name.data(), flag.data(), nullptr};
  char* environment[] = {nullptr};
  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, program.c_str(), &actions, &attributes, arguments, environment);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return "";
  input.reset();
  std::string text = readSome(output.get());
  ::kill(-pid, SIGKILL);  // and what it has started: it has printed all that counts
  ::waitpid(pid, nullptr, 0);
  text.erase(std::min(text.find_first_of(" \t\r\n"), text.size()));
  return text;
}

std::string selinuxLabelOf(const std::string& path) {
  std::array<char, 256> label{};
  const ssize_t size =
      ::lgetxattr(path.c_str(), "security.selinux", label.data(), label.size() - 1);
  return size <= 0 ? "" : label.data();
}

}  // namespace

Probes machineProbes() {
  return {spaceOf, versionOf, selinuxLabelOf};
}

}  // namespace vdpa::ctl
