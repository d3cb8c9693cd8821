#include "deviceplugin/ctl/capture_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <stdexcept>
#include <string>

#include "common/errors.h"
#include "common/unique_fd.h"
#include "deviceplugin/ctl/output_file.h"

namespace vdpa::ctl {
namespace {

bool isPipe(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
}

}  // namespace

CaptureOutput::CaptureOutput(const std::string& file)
    : name_(file == "-" ? "standard output" : file), standard_(file == "-") {
  std::signal(SIGPIPE, SIG_IGN);  // write() reports it
  if (!standard_) {
    own_ = openOutputFile(file);
    if (isPipe(own_.get())) ::fcntl(own_.get(), F_SETFL, O_WRONLY | O_NONBLOCK);
    return;
  }
  if (::isatty(STDOUT_FILENO))
    throw std::runtime_error(
        "a capture is not for a terminal: give -w FILE, or pipe it into a program that reads "
        "pcapng, such as tshark -r - or tcpdump -r -");
  // Opened again, if it can be: O_NONBLOCK would apply to all who share the shell's descriptor.
  if (isPipe(STDOUT_FILENO))
    own_ = UniqueFd(::open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC));
}

bool CaptureOutput::write(std::string& bytes) {
  if (!standard_ && size_ == 0 && !bytes.empty() && ::ftruncate(fd(), 0) < 0 && errno != EINVAL)
    throw systemError(errno, "cannot write {}", name_);  // EINVAL: a pipe or a device
  size_t done = 0;
  bool open = true;
  while (done < bytes.size()) {
    const ssize_t count = ::write(fd(), bytes.data() + done, bytes.size() - done);
    if (count >= 0) {
      done += static_cast<size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) break;
    if (errno != EPIPE) throw systemError(errno, "cannot write {}", name_);
    open = false;
    break;
  }
  bytes.erase(0, done);
  size_ += done;
  return open;
}

}  // namespace vdpa::ctl
