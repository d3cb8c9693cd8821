// Says which port each polling thread of a vdpa-switch serves at this moment, in a shared mapping
// of a file that outlives the process: after a crash, vdpa-datapath reads there whose ring it was.
// A pod writes its rings as it likes, so the ring being served is the first suspect.
//
// To say it costs a poller two plain stores a burst and no system call.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace vdpa {

// The switch's side.
class ServingPage {
 public:
  static constexpr uint32_t kNothing = UINT32_MAX;
  static constexpr size_t kMaxName = 95;  // bytes of a device ID

  // One poller's line of the page: written by that poller alone.
  struct alignas(64) Cell {
    std::atomic<uint32_t> serving{kNothing};  // port number << 16 | ring
    std::atomic<uint32_t> signal{0};          // the fatal signal of this thread; 0: none

    void begin(uint16_t port, uint16_t ring) {
      serving.store(static_cast<uint32_t>(port) << 16 | ring, std::memory_order_relaxed);
    }
    void end() { serving.store(kNothing, std::memory_order_relaxed); }
  };

  // Creates the page of the switch with this control socket, in place of an earlier switch's. If
  // the file cannot be had, logs why and keeps the page to itself.
  ServingPage(const std::string& control, unsigned pollers, unsigned ports);
  ~ServingPage();
  ServingPage(const ServingPage&) = delete;
  ServingPage& operator=(const ServingPage&) = delete;

  // Valid as long as the page.
  Cell& cell(unsigned poller);
  // From the control thread, before the port is served under this number.
  void name(uint16_t port, const std::string& id);

 private:
  size_t size_;
  std::byte* memory_;
  unsigned pollers_;
  unsigned ports_;
};

// Has the calling thread's fatal signals noted in `cell`, which outlives the thread, and handles
// those signals for the process: they are noted and then end it as they always do.
void noteCrashesIn(ServingPage::Cell& cell);
// The same for a handler that has found a signal to be fatal. Async-signal-safe.
void noteCrash(int signal) noexcept;

// --- vdpa-datapath's side

struct SwitchCrash {
  std::string port;  // its device ID
  unsigned ring = 0;
  int signal = 0;
};

// The crash that process `pid`, which has ended, noted in the page beside this control socket; none
// if it noted none, or served nobody then. The page is removed. What it says is the word of a
// process that a pod may have taken over: `port` may be any text without a control character.
std::optional<SwitchCrash> takeSwitchCrash(const std::string& control, pid_t pid) noexcept;

}  // namespace vdpa
