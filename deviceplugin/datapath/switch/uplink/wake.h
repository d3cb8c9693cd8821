// How a poller sleeps until a frame comes to its queue of an uplink.
#pragma once

namespace vdpa::vswitch {

// Belongs to the queue's poller, after it was made.
class Wake {
 public:
  virtual ~Wake() = default;
  // Readable once a frame has come since arm(), and until disarm(); then only if a frame waits.
  virtual int fd() const = 0;
  virtual void arm() = 0;
  virtual void disarm() = 0;
};

}  // namespace vdpa::vswitch
