#include "common/backend.h"

namespace vdpa {

const char* nameOf(BackendKind backend) {
  switch (backend) {
    case BackendKind::software:
      return "software";
    case BackendKind::kernel:
      return "kernel";
    case BackendKind::dpdk:
      return "dpdk";
  }
  return "";
}

const char* nameOf(Attach attach) {
  switch (attach) {
    case Attach::vhostUser:
      return "vhost-user";
    case Attach::vhostVdpa:
      return "vhost-vdpa";
    case Attach::virtioVdpa:
      return "virtio-vdpa";
  }
  return "";
}

}  // namespace vdpa
