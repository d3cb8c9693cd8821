// DPDK's environment for a process that owns one device: no other device is probed, no huge pages,
// no telemetry, no files.
#pragma once

#include <string>

#include "deviceplugin/datapath/pmd/dpdk_log.h"
#include "deviceplugin/datapath/pmd/options.h"

namespace vdpa::pmd {

class Eal {
 public:
  // Probes the device of `options`. Throws std::runtime_error with DPDK's errors if it can't start;
  // a device that its driver refuses is just missing afterwards.
  Eal(const PmdOptions& options, DpdkLog& log);
  ~Eal();
  Eal(const Eal&) = delete;
  Eal& operator=(const Eal&) = delete;
};

}  // namespace vdpa::pmd
