// The program's is a record lock, since the kernel tells who has one; the starter's
// is one of flock(2), which goes with the descriptor. Neither is in the other's way.
#include "common/control_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {
namespace {

using namespace std::chrono_literals;

// From a process's start to its lock.
constexpr auto kStartTime = 10s;

std::string fileOf(const std::string& control) {
  return std::filesystem::path(control).replace_extension(".lock");
}

struct flock wholeFile() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

UniqueFd openLock(const std::string& control) {
  return UniqueFd(checked(::open(fileOf(control).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600),
                          "cannot open {}", fileOf(control)));
}

// The process that has the record lock; 0, with the other lock taken: there is none. Waits for one
// that was started and has not got to it.
pid_t settledHolder(int file, const std::string& control) {
  for (const auto deadline = std::chrono::steady_clock::now() + kStartTime;;) {
    struct flock lock = wholeFile();
    checked(::fcntl(file, F_GETLK, &lock), "cannot tell who holds {}", fileOf(control));
    if (lock.l_type != F_UNLCK) return lock.l_pid;
    if (::flock(file, LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno != EWOULDBLOCK) checked(-1, "cannot lock {}", fileOf(control));
    if (std::chrono::steady_clock::now() > deadline)
      throw systemError(ETIMEDOUT,
                        "the process that has {} open hangs as it starts: end it (`fuser {}`)",
                        fileOf(control), fileOf(control));
    std::this_thread::sleep_for(1ms);
  }
}

std::runtime_error taken(pid_t pid, const std::string& control) {
  return std::runtime_error(
      fmt::format("process {} has the control socket {} already: end it first", pid, control));
}

}  // namespace

ControlLock::ControlLock(const std::string& control) : file_(openLock(control)) {
  struct flock lock = wholeFile();
  if (::fcntl(file_.get(), F_SETLK, &lock) == 0) return;
  if (errno != EAGAIN && errno != EACCES) checked(-1, "cannot lock {}", fileOf(control));
  throw taken(lockHolder(control), control);
}

UniqueFd lockForStart(const std::string& control) {
  UniqueFd file = openLock(control);
  if (const pid_t pid = settledHolder(file.get(), control)) throw taken(pid, control);
  return file;
}

pid_t lockHolder(const std::string& control) {
  const UniqueFd file(::open(fileOf(control).c_str(), O_RDWR | O_CLOEXEC));
  if (!file && errno == ENOENT) return 0;
  checked(file.get(), "cannot open {}", fileOf(control));
  const pid_t pid = settledHolder(file.get(), control);
  // Not left to the closing: a process that another thread starts this moment has a copy.
  if (pid == 0) ::flock(file.get(), LOCK_UN);
  return pid;
}

void removeLock(const std::string& control) {
  ::unlink(fileOf(control).c_str());
}

}  // namespace vdpa
