// DPDK's environment as the processes here start it: no huge pages, no telemetry, no files, so that
// it runs in a plain container.
#pragma once

#include <string>
#include <vector>

namespace vdpa::dpdk {

// rte_eal_init() with `words` beside what is always so; returns what that returns. `directory` is
// one that this process may write to; nothing stays in it. Call it before other threads run.
int startEal(const std::string& directory, std::vector<std::string> words);

}  // namespace vdpa::dpdk
