// Counts the calls of the CNI plugin, by command and result. Each call is a process of its own, and
// some fail just because vdpa-datapath does not run: so the counters are in a file that all these
// processes map, below /run, where they last until the node restarts. Nobody waits for anybody: a
// counter is an atomic number, and there is no lock that a stopped process could keep.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vdpa {

struct CniCallCount {
  std::string command;  // "ADD"
  unsigned code = 0;    // of the CNI specification; 0: success
  uint64_t count = 0;
};

// Best effort: a call must not fail because it cannot be counted. Makes the file, but no directory.
void countCniCall(const std::string& file, std::string_view command, unsigned code) noexcept;

// In the order of their first calls. Empty if there is no such file. Throws std::system_error.
std::vector<CniCallCount> readCniCalls(const std::string& file);

}  // namespace vdpa
