#define _LINUX_VIRTIO_RING_H  // its inline functions are C only
#include "tests/unit/worker/user_space_device.h"

#include <fcntl.h>
#include <linux/vhost.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "deviceplugin/datapath/vhost_user/net_config.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::worker::test {

namespace feature = vhost_user::feature;
using vhost_user::bit;
using vhost_user::NetConfig;

namespace {

constexpr uint16_t kEntries = 256;
constexpr uint64_t kLastIova = bit(48) - 1;
constexpr uint64_t kBackend =
    1ull << VHOST_BACKEND_F_IOTLB_MSG_V2 | 1ull << VHOST_BACKEND_F_IOTLB_BATCH;
constexpr uint8_t kClassMq = 4, kPairsSet = 0, kError = 1;

UserSpaceDevice* device = nullptr;  // the only one

template <typename T>
T& as(void* argument) {
  return *static_cast<T*>(argument);
}

}  // namespace

UserSpaceDevice::UserSpaceDevice(Nic nic)
    : nic_(nic),
      path_("/tmp/vdpa-user-space-XXXXXX"),
      kicked_(::epoll_create1(EPOLL_CLOEXEC)),
      stop_(::eventfd(0, EFD_CLOEXEC)),
      queues_(2u * nic.pairs + 1) {
  const UniqueFd node(::mkstemp(path_.data()));
  if (!node || device) throw std::runtime_error("no second device");
  device = this;
  epoll_event event{EPOLLIN, {.fd = stop_.get()}};
  ::epoll_ctl(kicked_.get(), EPOLL_CTL_ADD, stop_.get(), &event);
  thread_ = std::thread([this] { run(); });
}

UserSpaceDevice::~UserSpaceDevice() {
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
  device = nullptr;
  ::unlink(path_.c_str());
}

std::vector<uint16_t> UserSpaceDevice::told() const {
  std::lock_guard lock(mutex_);
  return told_;
}

uint16_t UserSpaceDevice::active() const {
  std::lock_guard lock(mutex_);
  return active_;
}

unsigned UserSpaceDevice::starts() const {
  std::lock_guard lock(mutex_);
  return starts_;
}

std::vector<uint32_t> UserSpaceDevice::enabled() const {
  std::lock_guard lock(mutex_);
  std::vector<uint32_t> indices;
  for (uint32_t i = 0; i < queues_.size(); ++i)
    if (queues_[i].enabled) indices.push_back(i);
  return indices;
}

bool UserSpaceDevice::isOpen() const {
  std::lock_guard lock(mutex_);
  return open_;
}

unsigned UserSpaceDevice::lost() const {
  std::lock_guard lock(mutex_);
  return lost_;
}

std::vector<std::string> UserSpaceDevice::faults() const {
  std::lock_guard lock(mutex_);
  return faults_;
}

// --- the packets

void UserSpaceDevice::run() {
  for (;;) {
    epoll_event event;
    if (::epoll_wait(kicked_.get(), &event, 1, -1) != 1) continue;
    if (event.data.fd == stop_.get()) return;
    std::lock_guard lock(mutex_);
    eventfd_t ignored;
    if (pollfd kick{event.data.fd, POLLIN, 0}; ::poll(&kick, 1, 0) == 1)
      ::eventfd_read(event.data.fd, &ignored);
    try {
      if (runs()) work();
    } catch (const std::exception& error) {
      faults_.emplace_back(error.what());
    }
  }
}

void UserSpaceDevice::work() {
  control();
  for (bool any = true; any;) {
    any = false;
    for (uint16_t pair = 0; pair < active_; ++pair) any = forward(pair) || any;
  }
}

std::byte* UserSpaceDevice::memory(uint64_t address, uint64_t size) {
  const auto next = mappings_.upper_bound(address);
  const auto found = next == mappings_.begin() ? mappings_.end() : std::prev(next);
  if (found == mappings_.end() || size > found->second.size ||
      address - found->first > found->second.size - size)
    throw std::runtime_error("memory at " + std::to_string(address) + " is not mapped");
  return found->second.memory + (address - found->first);
}

// It depends on the negotiated features; virtio 1.2, 5.1.2.
uint32_t UserSpaceDevice::controlIndex() const {
  return features_ & feature::kMultiqueue ? 2u * nic_.pairs : 2;
}

void UserSpaceDevice::control() {
  if (!(features_ & feature::kControlQueue) || nic_.deaf) return;
  Queue& queue = queues_[controlIndex()];
  while (auto chain = queue.ring ? queue.ring->take() : std::nullopt) {
    const auto& part = chain->buffers;
    uint16_t pairs = 0;
    const bool known = part.size() == 3 && part[0].size == 2 && part[1].size == 2 &&
                       part[2].size == 1 && part[0].data[0] == std::byte{kClassMq} &&
                       part[0].data[1] == std::byte{kPairsSet};
    if (known) std::memcpy(&pairs, part[1].data, sizeof pairs);
    told_.push_back(pairs);
    const bool good = pairs >= 1 && pairs <= nic_.pairs;
    if (!good) faults_.push_back("told to use " + std::to_string(pairs) + " pairs");
    if (good && nic_.answer == 0) active_ = pairs;
    *part.back().data = std::byte{good ? nic_.answer : kError};
    queue.ring->put(*chain, 1);
    ::eventfd_write(queue.call.get(), 1);
  }
}

bool UserSpaceDevice::forward(uint16_t pair) {
  Queue& queue = queues_[2u * pair + 1];
  const auto chain = queue.ring ? queue.ring->take() : std::nullopt;
  if (!chain) return false;
  std::vector<std::byte> frame;
  for (const auto& buffer : chain->buffers)
    frame.insert(frame.end(), buffer.data, buffer.data + buffer.size);
  queue.ring->put(*chain, 0);
  if (queue.call) ::eventfd_write(queue.call.get(), 1);
  deliver(frame);
  return true;
}

void UserSpaceDevice::deliver(const std::vector<std::byte>& frame) {
  Queue& queue = queues_[2u * (next_++ % active_)];
  const auto chain = queue.ring ? queue.ring->take() : std::nullopt;
  if (!chain || chain->buffers[0].size < frame.size()) {
    ++lost_;
    return;
  }
  std::memcpy(chain->buffers[0].data, frame.data(), frame.size());
  queue.ring->put(*chain, static_cast<uint32_t>(frame.size()));
  if (queue.call) ::eventfd_write(queue.call.get(), 1);
}

// --- the system calls

UserSpaceDevice* UserSpaceDevice::of(int fd) {
  struct stat node {
  }, own{};
  const bool same = device && ::fstat(fd, &node) == 0 && ::stat(device->path_.c_str(), &own) == 0 &&
                    node.st_ino == own.st_ino && node.st_dev == own.st_dev;
  return same ? device : nullptr;
}

UserSpaceDevice* UserSpaceDevice::at(const char* path) {
  return device && device->path_ == path ? device : nullptr;
}

int UserSpaceDevice::opened() {
  std::lock_guard lock(mutex_);
  if (open_) return EBUSY;
  open_ = true;
  reset();
  return 0;
}

void UserSpaceDevice::closed() {
  std::lock_guard lock(mutex_);
  reset();
  mappings_.clear();
  open_ = owned_ = false;
}

void UserSpaceDevice::reset() {
  for (auto& queue : queues_) {
    queue.ring.reset();
    queue.enabled = false;
    queue.where = {};
  }
  suspended_ = false;
  status_ = 0;
  features_ = 0;
  active_ = 1;
}

int UserSpaceDevice::setStatus(uint8_t status) {
  if (status != 0 && (status_ & ~status) != 0) return EINVAL;
  const bool starts = (status & ~status_) & VIRTIO_CONFIG_S_DRIVER_OK;
  if (status == 0) reset();
  status_ = status;
  if (starts) start();
  return 0;
}

void UserSpaceDevice::start() {
  ++starts_;
  for (uint32_t i = 0; i < queues_.size(); ++i) {
    Queue& queue = queues_[i];
    if (!queue.enabled) continue;
    queue.where.index = i;
    queue.ring = std::make_unique<DeviceRing>(
        queue.where, features_ & feature::kPackedRing,
        [this](uint64_t address, uint64_t size) { return memory(address, size); });
  }
}

int UserSpaceDevice::stop() {
  if (!nic_.suspends) return EOPNOTSUPP;
  if (!(status_ & VIRTIO_CONFIG_S_DRIVER_OK)) return EINVAL;
  suspended_ = true;
  return 0;
}

int UserSpaceDevice::setQueue(unsigned long request, void* argument) {
  const uint32_t index = as<vhost_vring_state>(argument).index;
  if (index >= queues_.size()) return ENOBUFS;
  Queue& queue = queues_[index];
  const uint32_t value = as<vhost_vring_state>(argument).num;
  const auto descriptor = [&](UniqueFd& into) {
    if (into) ::epoll_ctl(kicked_.get(), EPOLL_CTL_DEL, into.get(), nullptr);
    const int fd = as<vhost_vring_file>(argument).fd;
    into = UniqueFd(fd < 0 ? -1 : ::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  };
  switch (request) {
    case VHOST_SET_VRING_NUM:
      if (runs() || value == 0 || value > kEntries) return EINVAL;
      queue.where.size = value;
      return 0;
    case VHOST_SET_VRING_BASE:
      if (runs()) return EINVAL;
      queue.where.base = value;
      return 0;
    case VHOST_SET_VRING_ADDR: {
      if (runs()) return EINVAL;
      const auto& addresses = as<vhost_vring_addr>(argument);
      queue.where.descriptors = addresses.desc_user_addr;
      queue.where.available = addresses.avail_user_addr;
      queue.where.used = addresses.used_user_addr;
      return 0;
    }
    case VHOST_SET_VRING_CALL:
      descriptor(queue.call);
      return 0;
    case VHOST_SET_VRING_KICK: {
      descriptor(queue.kick);
      epoll_event event{EPOLLIN, {.fd = queue.kick.get()}};
      if (queue.kick) ::epoll_ctl(kicked_.get(), EPOLL_CTL_ADD, queue.kick.get(), &event);
      return 0;
    }
    case VHOST_VDPA_SET_VRING_ENABLE:
      // It doesn't offer ENABLE_AFTER_DRIVER_OK.
      if (status_ & VIRTIO_CONFIG_S_DRIVER_OK) faults_.emplace_back("enabled while it runs");
      queue.enabled = value != 0;
      return 0;
    case VHOST_GET_VRING_BASE:
      if (runs()) return EINVAL;
      as<vhost_vring_state>(argument).num = queue.ring ? queue.ring->base() : queue.where.base;
      return 0;
  }
  return ENOTTY;
}

int UserSpaceDevice::ioctl(unsigned long request, void* argument) {
  std::lock_guard lock(mutex_);
  const uint64_t backend = kBackend | (nic_.suspends ? 1ull << VHOST_BACKEND_F_SUSPEND : 0);
  constexpr uint64_t kOffered = feature::kVersion1 | bit(VIRTIO_F_ACCESS_PLATFORM) |
                                feature::kControlQueue | feature::kMultiqueue |
                                feature::kPackedRing | feature::kMergeableBuffers;
  switch (request) {
    case VHOST_VDPA_GET_DEVICE_ID:
      as<uint32_t>(argument) = 1;
      return 0;
    case VHOST_SET_OWNER:
      if (owned_) return EBUSY;
      owned_ = true;
      return 0;
    case VHOST_VDPA_GET_STATUS:
      as<uint8_t>(argument) = status_;
      return 0;
    case VHOST_VDPA_SET_STATUS:
      return setStatus(as<uint8_t>(argument));
    case VHOST_GET_FEATURES:
      as<uint64_t>(argument) = kOffered;
      return 0;
    case VHOST_SET_FEATURES:
      if (status_ & VIRTIO_CONFIG_S_FEATURES_OK) return EBUSY;
      features_ = as<uint64_t>(argument);
      if (features_ & ~kOffered || !(features_ & bit(VIRTIO_F_ACCESS_PLATFORM))) return EINVAL;
      return 0;
    case VHOST_GET_BACKEND_FEATURES:
      as<uint64_t>(argument) = backend;
      return 0;
    case VHOST_SET_BACKEND_FEATURES:
      backendFeatures_ = as<uint64_t>(argument);
      return backendFeatures_ & ~backend ? EOPNOTSUPP : 0;
    case VHOST_VDPA_GET_VRING_NUM:
      as<uint16_t>(argument) = kEntries;
      return 0;
    case VHOST_VDPA_GET_VQS_COUNT:
      as<uint32_t>(argument) = static_cast<uint32_t>(queues_.size());
      return 0;
    case VHOST_VDPA_GET_IOVA_RANGE:
      as<vhost_vdpa_iova_range>(argument) = {0, kLastIova};
      return 0;
    case VHOST_VDPA_GET_CONFIG: {
      NetConfig config{};
      config.maxQueuePairs = nic_.pairs;
      const auto header = as<vhost_vdpa_config>(argument);
      if (header.off != 0 || header.len > sizeof config) return EINVAL;
      std::memcpy(static_cast<std::byte*>(argument) + sizeof header, &config, header.len);
      return 0;
    }
    case VHOST_VDPA_SUSPEND:
      return stop();
    default:
      return setQueue(request, argument);
  }
}

ssize_t UserSpaceDevice::write(const void* data, size_t size) {
  std::lock_guard lock(mutex_);
  vhost_msg_v2 message;
  if (size != sizeof message) return -EINVAL;
  std::memcpy(&message, data, sizeof message);
  const auto& [iova, length, address, perm, type] = message.iotlb;
  switch (type) {
    case VHOST_IOTLB_UPDATE: {
      if (length == 0 || iova > kLastIova || length - 1 > kLastIova - iova) return -EINVAL;
      const auto next = mappings_.lower_bound(iova + length);
      if (next != mappings_.begin())
        if (const auto& [start, other] = *std::prev(next); start + other.size > iova)
          return -EEXIST;
      mappings_[iova] = {length, reinterpret_cast<std::byte*>(address)};
      return static_cast<ssize_t>(size);
    }
    case VHOST_IOTLB_INVALIDATE:
      mappings_.erase(iova);
      return static_cast<ssize_t>(size);
    case VHOST_IOTLB_BATCH_BEGIN:
    case VHOST_IOTLB_BATCH_END:
      return static_cast<ssize_t>(size);
  }
  return -EINVAL;
}

}  // namespace vdpa::worker::test

// The functions that the linker substitutes for the C library's.
extern "C" {
int __real_open64(const char* path, int flags, ...);
int __real_close(int fd);
int __real_ioctl(int fd, unsigned long request, ...);
ssize_t __real_write(int fd, const void* data, size_t size);

int __wrap_open64(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  if (auto* device = vdpa::worker::test::UserSpaceDevice::at(path))
    if (const int error = device->opened(); error != 0) {
      errno = error;
      return -1;
    }
  return __real_open64(path, flags, mode);
}

int __wrap_close(int fd) {
  if (auto* device = vdpa::worker::test::UserSpaceDevice::of(fd)) device->closed();
  return __real_close(fd);
}

int __wrap_ioctl(int fd, unsigned long request, ...) {
  std::va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  auto* device = vdpa::worker::test::UserSpaceDevice::of(fd);
  if (!device) return __real_ioctl(fd, request, argument);
  const int error = device->ioctl(request, argument);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

ssize_t __wrap_write(int fd, const void* data, size_t size) {
  auto* device = vdpa::worker::test::UserSpaceDevice::of(fd);
  if (!device) return __real_write(fd, data, size);
  const ssize_t written = device->write(data, size);
  if (written >= 0) return written;
  errno = static_cast<int>(-written);
  return -1;
}
}
