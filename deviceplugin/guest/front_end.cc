#include "deviceplugin/guest/front_end.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/errors.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/ring_setup.h"
#include "deviceplugin/guest/shared_memory.h"

namespace vdpa::guest {
namespace {

using vhost_user::Request;

constexpr time_t kTimeout = 10;  // s

}  // namespace

FrontEnd::FrontEnd(std::string path)
    : path_(std::move(path)),
      socket_(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "cannot make a socket")) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path)
    throw std::runtime_error(fmt::format("{}: longer than a socket's path may be", path_));
  std::memcpy(address.sun_path, path_.c_str(), path_.size());
  checked(::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
          "cannot connect to {}", path_);
  const timeval timeout{kTimeout, 0};
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

uint64_t FrontEnd::negotiate(uint64_t wanted) {
  using namespace vhost_user::feature;
  send(Request::SetOwner, nullptr, 0);
  const uint64_t offered = ask(Request::GetFeatures);
  if (!(offered & kVersion1))
    throw std::runtime_error(fmt::format("{} does not offer VERSION_1", path_));
  const uint64_t agreed = offered & (wanted | kVersion1 | kProtocolFeatures);
  if (agreed & kProtocolFeatures) {
    ask(Request::GetProtocolFeatures);
    send(Request::SetProtocolFeatures, 0);
  }
  send(Request::SetFeatures, agreed);
  return agreed;
}

void FrontEnd::share(const SharedMemory& memory) {
  vhost_user::WireMemoryTable table{};
  table.regionCount = 1;
  table.regions[0] = {addressOf(memory.start()), memory.size(), addressOf(memory.start()), 0};
  send(Request::SetMemTable, &table,
       offsetof(vhost_user::WireMemoryTable, regions) + sizeof(vhost_user::WireRegion),
       memory.fd());
}

void FrontEnd::start(uint32_t index, uint32_t size, const virtqueue::RingAddresses& addresses,
                     bool packed, int kick, int call) {
  // A packed ring begins with both sides' wrap counters set (virtio 1.2, 2.8.1).
  const vhost_user::VringState entries{index, size}, base{index, packed ? 0x80008000 : 0};
  send(Request::SetVringNum, &entries, sizeof entries);
  send(Request::SetVringBase, &base, sizeof base);
  const vhost_user::VringAddresses places{
      index, 0, addresses.descriptors, addresses.device, addresses.driver, 0};
  send(Request::SetVringAddr, &places, sizeof places);
  const uint64_t value = index;
  send(Request::SetVringCall, &value, sizeof value, call);
  send(Request::SetVringKick, &value, sizeof value, kick);
}

void FrontEnd::enable(uint32_t index, bool on) {
  const vhost_user::VringState state{index, on ? 1u : 0u};
  send(Request::SetVringEnable, &state, sizeof state);
}

void FrontEnd::synchronize() {
  ask(Request::GetFeatures);
}

bool FrontEnd::ended() const {
  pollfd watched{socket_.get(), POLLRDHUP, 0};
  return ::poll(&watched, 1, 0) > 0;
}

void FrontEnd::send(Request request, const void* payload, size_t size, int descriptor) const {
  vhost_user::MessageHeader header{static_cast<uint32_t>(request), vhost_user::kVersion,
                                   static_cast<uint32_t>(size)};
  iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(payload), size}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = size > 0 ? 2 : 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof descriptor)] = {};
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
  }
  const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  if (sent < 0) throw systemError(errno, "{}: cannot send {}", path_, nameOf(request));
  if (static_cast<size_t>(sent) != sizeof header + size)
    throw std::runtime_error(fmt::format("{}: {} was cut short", path_, nameOf(request)));
}

uint64_t FrontEnd::ask(Request request) const {
  send(request, nullptr, 0);
  struct [[gnu::packed]] {
    vhost_user::MessageHeader header;
    uint64_t value;
  } reply{};
  const ssize_t length = ::recv(socket_.get(), &reply, sizeof reply, MSG_WAITALL);
  if (length < 0) throw systemError(errno, "{}: no answer to {}", path_, nameOf(request));
  if (length != sizeof reply || reply.header.request != static_cast<uint32_t>(request))
    throw std::runtime_error(
        fmt::format("{} ended the connection at {} or before", path_, nameOf(request)));
  return reply.value;
}

}  // namespace vdpa::guest
