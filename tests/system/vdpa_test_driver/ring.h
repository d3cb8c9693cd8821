// A virtqueue as a device sees it (virtio 1.2, 2.7 split and 2.8 packed), in the memory of the
// front-end that is connected to rte_vhost.
#pragma once

#include <rte_vhost.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace vdpa_test {

struct Piece {
  uint8_t* data;
  uint32_t length;
  bool writable;
};

struct Chain {
  uint16_t id = 0;           // the buffer's descriptor ID, returned to the driver
  uint16_t descriptors = 0;  // the descriptors that it uses in the ring
  std::vector<Piece> pieces;
};

struct FreeMemory {
  void operator()(rte_vhost_memory* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<rte_vhost_memory, FreeMemory>;

// Not thread-safe.
class Ring {
 public:
  // Null unless rte_vhost has this ring, with addresses and both eventfds.
  static std::unique_ptr<Ring> open(int vid, uint16_t number, rte_vhost_memory& memory);
  virtual ~Ring() = default;

  // The next buffer that the driver made available; false if there is none, or after the driver
  // broke the ring.
  virtual bool next(Chain& chain) = 0;
  // Returns the buffer of the last next() to the driver, with `written` bytes in it.
  virtual void finish(const Chain& chain, uint32_t written) = 0;
  // Interrupts the driver, unless it suppressed interrupts.
  void interrupt();
  // Reports the ring's positions to rte_vhost.
  virtual void save() = 0;

  int kickFd() const { return vring_.kickfd; }
  uint64_t packets = 0;

 protected:
  Ring(int vid, uint16_t number, const rte_vhost_vring& vring, rte_vhost_memory& memory)
      : vid_(vid), number_(number), vring_(vring), memory_(memory) {}
  virtual bool wantsInterrupt() const = 0;
  // False if the memory is not part of the driver's.
  bool addPiece(Chain& chain, uint64_t address, uint32_t length, bool writable) const;

  const int vid_;
  const uint16_t number_;
  const rte_vhost_vring vring_;
  rte_vhost_memory& memory_;
  bool broken_ = false;
};

}  // namespace vdpa_test
