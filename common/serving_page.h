// Says which port each polling thread of a vdpa-switch serves at this moment, in a shared mapping
// of a file that outlives the process: after a crash, vdpa-datapath reads there whose ring it was.
// A pod writes its rings as it likes, so the ring being served is the first suspect.
//
// To say it costs a poller three plain stores a burst and no system call. A crash of another
// thread, or a switch that hangs, names nobody.
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
    std::atomic<uint32_t> served{kNothing};  // port number << 16 | ring; now, or the last one
    std::atomic<uint32_t> now{0};            // whether it is being served
    std::atomic<uint32_t> signal{0};         // the fatal signal of this thread; 0: none

    void begin(uint16_t port, uint16_t ring) {
      served.store(static_cast<uint32_t>(port) << 16 | ring, std::memory_order_relaxed);
      now.store(1, std::memory_order_relaxed);
    }
    void end() { now.store(0, std::memory_order_relaxed); }
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
  const std::string file_;
  size_t size_;
  std::byte* memory_;
  unsigned pollers_;
  unsigned ports_;
};

// Has the calling thread's fatal signals noted in `cell`, which outlives the thread, and handles
// those signals for the process: they are noted and then end it as they always do. Not SIGBUS,
// which is MemoryGuard's.
void noteCrashesIn(ServingPage::Cell& cell);
// The same for a handler that has found a signal to be fatal. Async-signal-safe.
void noteCrash(int signal) noexcept;

// --- vdpa-datapath's side

struct SwitchCrash {
  std::string port;  // the suspect: its device ID
  unsigned ring = 0;
  bool served = false;  // at that moment; or else it was the last one before
  int signal = 0;
};

// The crash that process `pid`, which has ended, noted in the page beside this control socket; none
// if it noted none, or served nobody before. The page is removed, unless it is another process's.
// `killed`: by SIGKILL, of which it can note nothing: its crash was at the one ring that it served
// then, if all pollers together served one.
// What it says is the word of a process that a pod may have taken over: `port` may be any text
// without a control character.
std::optional<SwitchCrash> takeSwitchCrash(const std::string& control, pid_t pid,
                                           bool killed = false) noexcept;

}  // namespace vdpa
