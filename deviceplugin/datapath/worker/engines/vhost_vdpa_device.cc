#define _LINUX_VIRTIO_RING_H  // its inline functions are C only
#include "deviceplugin/datapath/worker/engines/vhost_vdpa_device.h"

#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "common/errors.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/net_config.h"

// Newer than Debian 12's kernel headers.
#ifndef VHOST_BACKEND_F_RESUME
#define VHOST_BACKEND_F_RESUME 0x5
#endif
#ifndef VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK
#define VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK 0x6
#endif

namespace vdpa::worker {

using vhost_user::NetConfig;

namespace {

constexpr uint32_t kNetworkDevice = 1;  // virtio's device ID
constexpr uint64_t kNeededBackend = 1ull << VHOST_BACKEND_F_IOTLB_MSG_V2;
constexpr uint64_t kUsedBackend = kNeededBackend | 1ull << VHOST_BACKEND_F_IOTLB_BATCH |
                                  1ull << VHOST_BACKEND_F_SUSPEND |
                                  1ull << VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK;

uint64_t pageSize() {
  return static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

rlim_t memoryLimit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  return limit.rlim_cur;
}

UniqueFd openDevice(const std::string& path, uint64_t inode) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (struct stat node; fd && inode != 0) {
    checked(::fstat(fd.get(), &node), "cannot stat {}", path);
    if (node.st_ino != inode) throw systemError(ESTALE, "{} now belongs to another device", path);
  }
  if (fd) return fd;
  const char* remedy = errno == EBUSY    ? " (another program has it; end that first)"
                       : errno == ENOENT ? " (the vDPA device is gone, or not bound to vhost_vdpa)"
                       : errno == EPERM || errno == EACCES
                           ? " (this container may not use it: vdpa-datapath has to be privileged)"
                           : "";
  throw systemError(errno, "cannot open {}{}", path, remedy);
}

}  // namespace

VhostVdpaDevice::VhostVdpaDevice(const std::string& path, uint64_t inode)
    : path_(path), fd_(openDevice(path, inode)) {
  uint32_t id = 0;
  ioctl(VHOST_VDPA_GET_DEVICE_ID, &id, "get its device ID");
  if (id != kNetworkDevice)
    throw systemError(ENOTSUP, "{} is not a network device: its virtio ID is {}, expected {}",
                      path_, id, kNetworkDevice);
  ioctl(VHOST_SET_OWNER, nullptr, "become its owner");
  setStatus(0);
  ioctl(VHOST_GET_FEATURES, &facts_.features, "get its features");
  ioctl(VHOST_GET_BACKEND_FEATURES, &facts_.backendFeatures, "get the kernel's features");
  if ((facts_.backendFeatures & kNeededBackend) != kNeededBackend)
    throw systemError(ENOTSUP, "{}: this kernel's vhost-vdpa is too old: expected Linux 5.18",
                      path_);
  facts_.backendFeatures &= kUsedBackend;
  ioctl(VHOST_SET_BACKEND_FEATURES, &facts_.backendFeatures, "agree on the kernel's features");
  ioctl(VHOST_VDPA_GET_VRING_NUM, &facts_.queueSize, "get its ring size");
  ioctl(VHOST_VDPA_GET_VQS_COUNT, &facts_.virtqueues,
        "get its number of queues, which needs Linux 5.18");
  vhost_vdpa_iova_range range{};
  ioctl(VHOST_VDPA_GET_IOVA_RANGE, &range, "get its address range");
  facts_.firstIova = range.first;
  facts_.lastIova = range.last;
  // A header and the part of the configuration that is used.
  std::array<std::byte, sizeof(vhost_vdpa_config) + sizeof(NetConfig)> request{};
  const vhost_vdpa_config header{0, sizeof(NetConfig)};
  std::memcpy(request.data(), &header, sizeof header);
  ioctl(VHOST_VDPA_GET_CONFIG, request.data(), "read its configuration");
  std::memcpy(&facts_.config, request.data() + sizeof header, sizeof facts_.config);
}

VhostVdpaDevice::~VhostVdpaDevice() {
  const uint8_t none = 0;
  ::ioctl(fd_.get(), VHOST_VDPA_SET_STATUS, &none);
  fd_.reset();  // unmaps the device's mappings; ours follow
  for (const auto& mapping : mappings_)
    if (mapping.memory) ::munmap(mapping.memory, mapping.size);
}

void VhostVdpaDevice::ioctl(unsigned long request, const void* argument, const char* what) {
  checked(::ioctl(fd_.get(), request, argument), "cannot {} ({})", what, path_);
}

void VhostVdpaDevice::setStatus(uint8_t status) {
  ioctl(VHOST_VDPA_SET_STATUS, &status, "set its status");
}

uint8_t VhostVdpaDevice::status() {
  uint8_t status = 0;
  ioctl(VHOST_VDPA_GET_STATUS, &status, "read its status");
  return status;
}

void VhostVdpaDevice::negotiate(uint64_t features) {
  setStatus(0);
  setStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE);
  setStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
  ioctl(VHOST_SET_FEATURES, &features, "agree on features");
  setStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
  if (!(status() & VIRTIO_CONFIG_S_FEATURES_OK))
    throw systemError(ENOTSUP, "{}: the device refuses the features {:#x}", path_, features);
}

void VhostVdpaDevice::sendIotlb(uint8_t type, uint64_t iova, uint64_t size, uint64_t address) {
  vhost_msg_v2 message{};
  message.type = VHOST_IOTLB_MSG_V2;
  message.iotlb.iova = iova;
  message.iotlb.size = size;
  message.iotlb.uaddr = address;
  message.iotlb.perm = VHOST_ACCESS_RW;
  message.iotlb.type = type;
  const ssize_t written = ::write(fd_.get(), &message, sizeof message);
  if (written == sizeof message) return;
  // vhost answers EFAULT whatever went wrong (vhost_chr_write_iter()).
  const int error = written < 0 ? errno : EIO;
  throw systemError(error, "cannot {} {:#x} bytes at {:#x} for {}",
                    type == VHOST_IOTLB_UPDATE ? "map" : "unmap", size, iova, path_);
}

// The kernel counts pinned memory against this limit, but doesn't report when it is exceeded.
void VhostVdpaDevice::checkPinned(uint64_t size) const {
  uint64_t pinned = size;
  for (const auto& mapping : mappings_) pinned += mapping.size;
  const rlim_t limit = memoryLimit();
  if (limit == RLIM_INFINITY || pinned <= limit) return;
  throw systemError(ENOMEM,
                    "cannot pin {} MiB of the pod's memory for {}: the limit of locked memory is "
                    "{} KiB; raise RLIMIT_MEMLOCK of vdpa-datapath's container",
                    pinned >> 20, path_, limit >> 10);
}

void VhostVdpaDevice::map(uint64_t iova, uint64_t size, int file, uint64_t offset) {
  const uint64_t page = pageSize();
  if (iova % page || size % page || offset % page)
    throw systemError(EINVAL, "memory of {:#x} bytes at {:#x} is not page-aligned", size, iova);
  checkPinned(size);
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file,
                        static_cast<off_t>(offset));
  if (memory == MAP_FAILED)
    throw systemError(errno, "cannot map {:#x} bytes of the pod's memory", size);
  mappings_.push_back({iova, size, memory});
  if (iova < facts_.firstIova || iova + (size - 1) > facts_.lastIova)
    throw systemError(EINVAL,
                      "memory at {:#x} to {:#x} is outside the device's range, {:#x} to {:#x}",
                      iova, iova + (size - 1), facts_.firstIova, facts_.lastIova);
  sendIotlb(VHOST_IOTLB_UPDATE, iova, size, reinterpret_cast<uint64_t>(memory));
}

void VhostVdpaDevice::mapOwn(uint64_t iova, uint64_t size, void* memory) {
  checkPinned(size);
  mappings_.push_back({iova, size, nullptr});
  sendIotlb(VHOST_IOTLB_UPDATE, iova, size, reinterpret_cast<uint64_t>(memory));
}

void VhostVdpaDevice::unmap(uint64_t iova) {
  const auto found = std::find_if(mappings_.begin(), mappings_.end(),
                                  [&](const Mapping& mapping) { return mapping.iova == iova; });
  if (found == mappings_.end()) throw systemError(EINVAL, "no memory is mapped at {:#x}", iova);
  const Mapping mapping = *found;
  sendIotlb(VHOST_IOTLB_INVALIDATE, mapping.iova, mapping.size, 0);
  mappings_.erase(found);
  if (mapping.memory) ::munmap(mapping.memory, mapping.size);
}

void VhostVdpaDevice::beginMapping() {
  if (facts_.backendFeatures & 1ull << VHOST_BACKEND_F_IOTLB_BATCH)
    sendIotlb(VHOST_IOTLB_BATCH_BEGIN, 0, 0, 0);
}

void VhostVdpaDevice::endMapping() {
  if (facts_.backendFeatures & 1ull << VHOST_BACKEND_F_IOTLB_BATCH)
    sendIotlb(VHOST_IOTLB_BATCH_END, 0, 0, 0);
}

void VhostVdpaDevice::unmapAll() {
  if (mappings_.empty()) return;
  const auto mappings = std::exchange(mappings_, {});
  try {
    beginMapping();
    for (const auto& mapping : mappings)
      sendIotlb(VHOST_IOTLB_INVALIDATE, mapping.iova, mapping.size, 0);
    endMapping();
  } catch (const std::system_error&) {
    // It may never have been mapped, after a partial failure; closing the device unmaps the rest.
  }
  for (const auto& mapping : mappings)
    if (mapping.memory) ::munmap(mapping.memory, mapping.size);
}

void VhostVdpaDevice::setQueue(const Queue& queue) {
  const vhost_vring_state size{queue.index, queue.size};
  ioctl(VHOST_SET_VRING_NUM, &size, "set a ring's size");
  const vhost_vring_state base{queue.index, queue.base};
  ioctl(VHOST_SET_VRING_BASE, &base, "set a ring's position");
  vhost_vring_addr addresses{};
  addresses.index = queue.index;
  addresses.desc_user_addr = queue.descriptors;
  addresses.avail_user_addr = queue.available;
  addresses.used_user_addr = queue.used;
  ioctl(VHOST_SET_VRING_ADDR, &addresses, "set a ring's addresses");
  setCall(queue.index, queue.call);
  setKick(queue.index, queue.kick);
}

void VhostVdpaDevice::setCall(uint32_t index, int call) {
  const vhost_vring_file file{index, call};
  ioctl(VHOST_SET_VRING_CALL, &file, "set a ring's call eventfd");
}

void VhostVdpaDevice::setKick(uint32_t index, int kick) {
  const vhost_vring_file file{index, kick};
  ioctl(VHOST_SET_VRING_KICK, &file, "set a ring's kick eventfd");
}

void VhostVdpaDevice::enable(uint32_t index) {
  const vhost_vring_state on{index, 1};
  ioctl(VHOST_VDPA_SET_VRING_ENABLE, &on, "enable a ring");
}

void VhostVdpaDevice::run() {
  setStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
            VIRTIO_CONFIG_S_DRIVER_OK);
  if (!(status() & VIRTIO_CONFIG_S_DRIVER_OK))
    throw systemError(EIO, "{}: the device does not start; see the kernel's log", path_);
}

bool VhostVdpaDevice::canSuspend() const {
  return (facts_.backendFeatures & 1ull << VHOST_BACKEND_F_SUSPEND) != 0;
}

void VhostVdpaDevice::suspend() {
  ioctl(VHOST_VDPA_SUSPEND, nullptr, "suspend it");
}

std::optional<uint32_t> VhostVdpaDevice::base(uint32_t index) {
  vhost_vring_state state{index, 0};
  if (::ioctl(fd_.get(), VHOST_GET_VRING_BASE, &state) < 0) return std::nullopt;
  return state.num;
}

void VhostVdpaDevice::reset() {
  setStatus(0);
}

}  // namespace vdpa::worker
