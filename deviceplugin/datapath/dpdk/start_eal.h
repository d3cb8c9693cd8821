// Starts DPDK's environment for these processes: no huge pages, no telemetry, no files, so that it
// runs in a plain container.
#pragma once

#include <string>
#include <vector>

namespace vdpa::dpdk {

// Calls rte_eal_init() with `words` besides the fixed options; returns its result. `directory` must
// be writable; nothing stays in it. Call it before other threads run.
int startEal(const std::string& directory, std::vector<std::string> words);

}  // namespace vdpa::dpdk
