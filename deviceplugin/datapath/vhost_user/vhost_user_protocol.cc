#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"

#include <fmt/core.h>

#include <cstdint>
#include <string>

namespace vdpa::vhost_user {

std::string nameOf(Request request) {
  switch (request) {
    case Request::GetFeatures:
      return "GET_FEATURES";
    case Request::SetFeatures:
      return "SET_FEATURES";
    case Request::SetOwner:
      return "SET_OWNER";
    case Request::ResetOwner:
      return "RESET_OWNER";
    case Request::SetMemTable:
      return "SET_MEM_TABLE";
    case Request::SetVringNum:
      return "SET_VRING_NUM";
    case Request::SetVringAddr:
      return "SET_VRING_ADDR";
    case Request::SetVringBase:
      return "SET_VRING_BASE";
    case Request::GetVringBase:
      return "GET_VRING_BASE";
    case Request::SetVringKick:
      return "SET_VRING_KICK";
    case Request::SetVringCall:
      return "SET_VRING_CALL";
    case Request::SetVringErr:
      return "SET_VRING_ERR";
    case Request::GetProtocolFeatures:
      return "GET_PROTOCOL_FEATURES";
    case Request::SetProtocolFeatures:
      return "SET_PROTOCOL_FEATURES";
    case Request::GetQueueNum:
      return "GET_QUEUE_NUM";
    case Request::SetVringEnable:
      return "SET_VRING_ENABLE";
    case Request::NetSetMtu:
      return "NET_SET_MTU";
    case Request::SetBackendReqFd:
      return "SET_BACKEND_REQ_FD";
    case Request::GetConfig:
      return "GET_CONFIG";
    case Request::SetConfig:
      return "SET_CONFIG";
    case Request::ResetDevice:
      return "RESET_DEVICE";
    case Request::SetStatus:
      return "SET_STATUS";
    case Request::GetStatus:
      return "GET_STATUS";
  }
  return fmt::format("request {}", static_cast<uint32_t>(request));
}

}  // namespace vdpa::vhost_user
