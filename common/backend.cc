// See the header.
#include "common/backend.h"

namespace vdpa {

const char* nameOf(Backend backend) {
  switch (backend) {
    case Backend::software:
      return "software";
    case Backend::kernel:
      return "kernel";
    case Backend::dpdk:
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
