// Records which port each polling thread of a vdpa-switch is serving, in a shared mapping of a file
// that outlives the process: after a crash, vdpa-datapath reads from it whose ring it was. A pod
// can write anything to its rings, so the ring being served is the first suspect.
//
// It costs a poller three plain stores per burst and no system call. A crash of another thread, or
// a switch that hangs, identifies no pod.
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

  // One poller's line of the page, written only by that poller.
  struct alignas(64) Cell {
    std::atomic<uint32_t> served{kNothing};  // port number << 16 | ring; current or last
    std::atomic<uint32_t> now{0};            // whether it is being served
    std::atomic<uint32_t> signal{0};         // the fatal signal of this thread; 0: none

    void begin(uint16_t port, uint16_t ring) {
      served.store(static_cast<uint32_t>(port) << 16 | ring, std::memory_order_relaxed);
      now.store(1, std::memory_order_relaxed);
    }
    void end() { now.store(0, std::memory_order_relaxed); }
  };

  // Creates the page of the switch with this control socket, replacing an earlier switch's. If the
  // file cannot be created, logs the reason and uses private memory.
  ServingPage(const std::string& control, unsigned pollers, unsigned ports);
  ~ServingPage();
  ServingPage(const ServingPage&) = delete;
  ServingPage& operator=(const ServingPage&) = delete;

  // Valid as long as this.
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

// Records the calling thread's fatal signals in `cell`, which must outlive the thread, and installs
// the process's handler for those signals: it records them, then they end the process as usual.
// SIGBUS is MemoryGuard's.
void noteCrashesIn(ServingPage::Cell& cell);
// Records a signal that another handler has found to be fatal. Async-signal-safe.
void noteCrash(int signal) noexcept;

// --- vdpa-datapath's side

struct SwitchCrash {
  std::string port;  // the suspect: its device ID
  unsigned ring = 0;
  bool served = false;  // at that moment; otherwise it was the last one before
  int signal = 0;
};

// The crash that the ended process `pid` recorded in the page beside this control socket; none if
// it recorded none, or had not served a port. Removes the page, unless it is another process's.
// `killed`: by SIGKILL, which it can't record: the suspect is then the ring being served, if all
// pollers together served only one.
// A pod may have taken over that process, so don't trust the page: `port` may be any text without a
// control character.
std::optional<SwitchCrash> takeSwitchCrash(const std::string& control, pid_t pid,
                                           bool killed = false) noexcept;

}  // namespace vdpa
