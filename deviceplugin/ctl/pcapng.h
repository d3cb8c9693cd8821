// Blocks of a capture file, by "PCAP Next Generation (pcapng) Capture File Format"
// (draft-ietf-opsawg-pcapng), whose sections are cited. One section, of one Ethernet interface, in
// this machine's byte order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace vdpa::ctl {

// All append to `bytes`. Times are in nanoseconds since 1970. Texts are UTF-8, at most 64 KiB.
class Pcapng {
 public:
  // 4.1: begins the file. The program that writes it.
  void section(std::string_view application);
  // 4.2: comes next. `snapLength`: bytes that are kept of a frame.
  void interface(std::string_view name, std::string_view description, uint32_t snapLength);
  struct Frame {
    uint64_t time = 0;
    bool inbound = false;             // else outbound
    uint32_t length = 0;              // on the wire, without the frame check sequence
    std::span<const std::byte> data;  // its first bytes
    std::string_view comment = {};    // empty: none
  };
  // 4.3
  void frame(const Frame& frame);
  // 4.6: at the end. All frames since the start, and those of them that are not in the file.
  void statistics(uint64_t time, uint64_t received, uint64_t dropped);

  std::string bytes;

 private:
  size_t begin(uint32_t type);
  void end(size_t begun);
  template <typename T>
  void add(T value);
  void addPadded(const void* data, size_t size);
  void option(uint16_t code, const void* value, size_t size);
  void option(uint16_t code, std::string_view text) { option(code, text.data(), text.size()); }
  void time(uint64_t time);
};

}  // namespace vdpa::ctl
