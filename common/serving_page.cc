#include "common/serving_page.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

#include "common/errors.h"
#include "common/log.h"
#include "common/unique_fd.h"

namespace vdpa {
namespace {

constexpr uint64_t kMagic = 0x3147505653445056;  // "VPDSVPG1"
constexpr size_t kMaxSize = 1 << 20;             // bytes; twice a page of 4,160 ports

// The file: a Header, a Cell for each poller, a Name for each port number.
struct alignas(64) Header {
  uint64_t magic;
  uint32_t pid;
  uint32_t pollers;
  uint32_t ports;
};
using Name = char[ServingPage::kMaxName + 1];

constexpr size_t cellAt(size_t poller) {
  return sizeof(Header) + poller * sizeof(ServingPage::Cell);
}
constexpr size_t nameAt(size_t pollers, size_t port) {
  return cellAt(pollers) + port * sizeof(Name);
}

std::string fileOf(const std::string& control) {
  return std::filesystem::path(control).replace_extension(".serving");
}

UniqueFd createFile(const std::string& path, size_t size) {
  ::unlink(path.c_str());  // an earlier switch's, which vdpa-datapath may be reading
  UniqueFd file(checked(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600),
                        "cannot create {}", path));
  // Allocate it all now, so that a full disk is a clear error and not a poller's SIGBUS.
  if (const int error = ::posix_fallocate(file.get(), 0, static_cast<off_t>(size)); error != 0)
    throw systemError(error, "cannot allocate {} bytes for {}", size, path);
  return file;
}

// `file` -1: anonymous memory.
std::byte* map(int file, size_t size) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
  if (memory == MAP_FAILED) throw systemError(errno, "cannot map {} bytes", size);
  return static_cast<std::byte*>(memory);
}

constexpr int kFatal[] = {SIGSEGV, SIGILL, SIGFPE, SIGABRT};

// A signal handler's only context is its thread.
thread_local ServingPage::Cell* cellOfThread = nullptr;

// SA_RESETHAND has restored the default action: the same signal ends the process, with a core dump,
// when this returns.
void onFatal(int signal) {
  noteCrash(signal);
  ::raise(signal);
}

std::optional<Header> headerOf(const std::byte* page, size_t size) {
  Header header;
  if (size < sizeof header) return std::nullopt;
  std::memcpy(&header, page, sizeof header);
  if (header.magic != kMagic || header.pollers > kMaxSize || header.ports > kMaxSize ||
      size < nameAt(header.pollers, header.ports))
    return std::nullopt;
  return header;
}

// Empty for a port without a valid name.
std::string nameIn(const std::byte* page, const Header& header, uint32_t port) {
  if (port >= header.ports) return "";
  const auto* text = reinterpret_cast<const char*>(page + nameAt(header.pollers, port));
  std::string name(text, ::strnlen(text, ServingPage::kMaxName));
  const bool plain =
      std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < ' ' || c == 0x7f; });
  return plain ? name : "";
}

std::optional<SwitchCrash> crashIn(const std::byte* page, const Header& header) {
  for (size_t poller = 0; poller < header.pollers; ++poller) {
    const auto* cell = reinterpret_cast<const ServingPage::Cell*>(page + cellAt(poller));
    const uint32_t signal = cell->signal.load(), served = cell->served.load();
    const std::string port = nameIn(page, header, served >> 16);
    if (signal != 0 && !port.empty())
      return SwitchCrash{port, served & 0xffff, cell->now.load() != 0, static_cast<int>(signal)};
  }
  return std::nullopt;
}

std::optional<SwitchCrash> killIn(const std::byte* page, const Header& header) {
  std::optional<SwitchCrash> found;
  for (size_t poller = 0; poller < header.pollers; ++poller) {
    const auto* cell = reinterpret_cast<const ServingPage::Cell*>(page + cellAt(poller));
    if (cell->now.load() == 0) continue;
    if (found) return std::nullopt;
    const uint32_t served = cell->served.load();
    found = SwitchCrash{nameIn(page, header, served >> 16), served & 0xffff, true, SIGKILL};
  }
  return found && !found->port.empty() ? found : std::nullopt;
}

}  // namespace

ServingPage::ServingPage(const std::string& control, unsigned pollers, unsigned ports)
    : file_(fileOf(control)), size_(nameAt(pollers, ports)), pollers_(pollers), ports_(ports) {
  try {
    memory_ = map(createFile(file_, size_).get(), size_);
  } catch (const std::system_error& error) {
    log::warn("a pod that crashes this switch will not be identified: {}", withRemedy(error));
    memory_ = map(-1, size_);
  }
  new (memory_) Header{kMagic, static_cast<uint32_t>(::getpid()), pollers, ports};
  for (unsigned poller = 0; poller < pollers; ++poller) new (memory_ + cellAt(poller)) Cell;
}

ServingPage::~ServingPage() {
  ::munmap(memory_, size_);
  ::unlink(file_.c_str());
}

ServingPage::Cell& ServingPage::cell(unsigned poller) {
  if (poller >= pollers_) throw std::out_of_range("no such poller");
  return *reinterpret_cast<Cell*>(memory_ + cellAt(poller));
}

void ServingPage::name(uint16_t port, const std::string& id) {
  if (port >= ports_) throw std::out_of_range("no such port");
  if (id.size() > kMaxName)
    throw std::runtime_error(
        fmt::format("port id '{}' has {} bytes; at most {} fit", id, id.size(), kMaxName));
  char* name = reinterpret_cast<char*>(memory_ + nameAt(pollers_, port));
  std::memcpy(name, id.c_str(), id.size() + 1);
}

void noteCrashesIn(ServingPage::Cell& cell) {
  cellOfThread = &cell;
  struct sigaction action {};
  action.sa_handler = onFatal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : kFatal) {
    struct sigaction present {};
    checked(::sigaction(signal, nullptr, &present), "cannot read the action of signal {}", signal);
    if (present.sa_flags & SA_SIGINFO) continue;  // a sanitizer's, which reports more
    checked(::sigaction(signal, &action, nullptr), "cannot handle signal {}", signal);
  }
}

void noteCrash(int signal) noexcept {
  if (cellOfThread) cellOfThread->signal.store(static_cast<uint32_t>(signal));
}

std::optional<SwitchCrash> takeSwitchCrash(const std::string& control, pid_t pid,
                                           bool killed) noexcept {
  const std::string path = fileOf(control);
  try {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file) return std::nullopt;  // a switch of 0.1.0 has none
    struct stat status {};
    checked(::fstat(file.get(), &status), "cannot stat {}", path);
    const auto size = static_cast<size_t>(status.st_size);
    if (!S_ISREG(status.st_mode) || size > kMaxSize) return std::nullopt;
    // Aligned for the cells; a copy, since mapped memory can be truncated.
    const auto copy = std::make_unique<Header[]>(size / sizeof(Header) + 1);
    auto* page = reinterpret_cast<std::byte*>(copy.get());
    const int read =
        checked(static_cast<int>(::pread(file.get(), page, size, 0)), "cannot read {}", path);
    const auto header = headerOf(page, static_cast<size_t>(read));
    if (header && header->pid != static_cast<uint32_t>(pid)) return std::nullopt;
    ::unlink(path.c_str());
    if (!header) return std::nullopt;
    return killed ? killIn(page, *header) : crashIn(page, *header);
  } catch (const std::exception& error) {
    log::warn("{}", error.what());
    return std::nullopt;
  }
}

}  // namespace vdpa
