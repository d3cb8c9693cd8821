// Starts DPDK's environment for these processes: no huge pages, no telemetry, no files, so that it
// runs in a plain container.
#pragma once

#include <string>
#include <vector>

namespace vdpa::dpdk {

// The file name of a library of the DPDK that this process runs with, for dlopen() or EAL's -d:
// "librte_net_ice.so" gets EAL's version, since all carry the same.
std::string versionedLibrary(const std::string& library);

// Calls rte_eal_init() with `words` besides the fixed options; returns its result. `directory` must
// be writable; nothing stays in it. Call it before other threads run.
int startEal(const std::string& directory, std::vector<std::string> words);

}  // namespace vdpa::dpdk
