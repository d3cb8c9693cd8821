// One vhost-user message with the descriptors that came with it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

namespace vdpa::vhost_user {

// A descriptor of the pod's that the session records and the engine passes on. Two are the same
// descriptor when the pointers are equal; null is "none".
using SharedFd = std::shared_ptr<const UniqueFd>;

struct Message {
  Request request{};
  uint32_t flags = 0;
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;

  // The payload as T; missing bytes stay zero.
  template <typename T>
  T as() const {
    T value{};
    if (!payload.empty())
      std::memcpy(&value, payload.data(), std::min(sizeof value, payload.size()));
    return value;
  }
};

// The bytes of a message: header and payload.
std::vector<std::byte> encode(Request request, uint32_t flags, const void* payload, size_t size);

}  // namespace vdpa::vhost_user
