#include "deviceplugin/datapath/pmd/vhost_session.h"

#include <fmt/core.h>
#include <rte_vdpa.h>
#include <rte_vhost.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/errors.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/unix_socket.h"

namespace vdpa::pmd {
namespace {

constexpr const char* kBellSuffix = ".bell";

std::atomic<VhostSession*> instance{nullptr};

// rte_vhost would truncate a longer path.
std::string checkedPath(std::string path) {
  const size_t longest = kMaxSocketPath - std::string_view(kBellSuffix).size() - 2;
  if (path.size() > longest)
    throw std::runtime_error(
        fmt::format("socket path {} has {} bytes; at most {} fit", path, path.size(), longest));
  return path;
}

}  // namespace

const rte_vhost_device_ops* VhostSession::operations() {
  static const rte_vhost_device_ops table = [] {
    rte_vhost_device_ops operations{};
    operations.new_connection = [](int vid) { return instance.load()->onNewConnection(vid); };
    operations.destroy_connection = [](int vid) { instance.load()->onDestroyConnection(vid); };
    operations.new_device = [](int) { return 0; };  // the driver is asked next
    operations.destroy_device = [](int vid) { instance.load()->onStopped(vid); };
    return operations;
  }();
  return &table;
}

VhostSession::VhostSession(std::string path)
    : path_(checkedPath(std::move(path))),
      changed_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd")),
      memoryAlarm_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd")),
      guard_(
          MemoryGuard::Unknown::kReplacePage,
          [](void* alarm, int) { ::eventfd_write(static_cast<UniqueFd*>(alarm)->get(), 1); },
          &memoryAlarm_),
      waker_(path_ + kBellSuffix) {
  instance = this;
}

VhostSession::~VhostSession() {
  close();
  instance = nullptr;
}

void VhostSession::open(rte_vdpa_device* device) {
  const char* path = path_.c_str();
  ::unlink(path);
  const auto check = [&](int result, const char* what) {
    if (result != 0) throw std::runtime_error(fmt::format("cannot {} the socket {}", what, path));
  };
  check(rte_vhost_driver_register(path, 0), "register");
  open_ = true;
  check(rte_vhost_driver_attach_vdpa_device(path, device), "attach the device to");
  check(rte_vhost_driver_callback_register(path, operations()), "configure");
  check(rte_vhost_driver_start(path), "listen on");
  waker_.ring();
}

void VhostSession::close() {
  if (!open_) return;
  open_ = false;
  rte_vhost_driver_unregister(path_.c_str());
  ::unlink(path_.c_str());
  waker_.ring();
  Lock lock(mutex_);
  vid_ = -1;
  state_ = {};
}

VhostSession::State VhostSession::take() {
  eventfd_t ignored;
  ::eventfd_read(changed_.get(), &ignored);
  Lock lock(mutex_);
  State state = state_;
  state_.failure.clear();
  return state;
}

void VhostSession::change(State state) {
  {
    Lock lock(mutex_);
    if (!state_.failure.empty()) state.failure = state_.failure;  // not taken yet
    state_ = std::move(state);
  }
  ::eventfd_write(changed_.get(), 1);
}

void VhostSession::memoryGone() {
  eventfd_t ignored;
  ::eventfd_read(memoryAlarm_.get(), &ignored);
  change({false, "the pod truncated the memory it shares"});
}

// --- rte_vhost's thread

int VhostSession::onNewConnection(int vid) {
  Lock lock(mutex_);
  if (vid_ >= 0) {
    log::warn("refused a second connection to {}", path_);
    return -1;
  }
  vid_ = vid;
  return 0;
}

void VhostSession::onDestroyConnection(int vid) {
  Lock lock(mutex_);
  if (vid == vid_) vid_ = -1;
}

void VhostSession::onStopped(int vid) {
  {
    Lock lock(mutex_);
    if (vid != vid_) return;
  }
  change({});
}

void VhostSession::started(const std::string& reason) {
  change({reason.empty(), reason});
}

}  // namespace vdpa::pmd
