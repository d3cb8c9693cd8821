// The buffers of an uplink, for received frames until the switch has forwarded them, and for frames
// until they are sent.
#pragma once

#include <rte_mempool.h>

#include <cstddef>
#include <memory>

namespace vdpa::vswitch {

class PacketPool {
 public:
  // `packets` of `room` bytes each, besides their headroom. `dma`: devices behind vfio-pci read and
  // write them. EAL must have been started and must outlive it. Throws std::runtime_error or
  // std::system_error with a remedy.
  PacketPool(unsigned packets, unsigned room, bool dma);
  ~PacketPool();
  PacketPool(const PacketPool&) = delete;
  PacketPool& operator=(const PacketPool&) = delete;

  rte_mempool* get() const { return pool_; }

 private:
  // Anonymous memory that the kernel backs with huge pages where it can.
  class Memory {
   public:
    explicit Memory(size_t size);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void* data() const { return data_; }
    size_t size() const { return size_; }

   private:
    void* reserved_;
    size_t reservedSize_;
    void* data_;
    size_t size_;
  };
  void openToDevices();

  rte_mempool* pool_ = nullptr;
  std::unique_ptr<Memory> memory_;
  bool open_ = false;
};

}  // namespace vdpa::vswitch
