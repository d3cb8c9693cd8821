// DPDK reports why something failed only in its log: its lines go to our log, and the errors among
// them are the reasons that this program reports.
#pragma once

#include <cstdio>
#include <deque>
#include <string>

#include "common/mutex.h"

namespace vdpa::pmd {

// One at a time: DPDK has one log. Any thread of DPDK writes to it.
class DpdkLog {
 public:
  DpdkLog();
  ~DpdkLog();
  DpdkLog(const DpdkLog&) = delete;
  DpdkLog& operator=(const DpdkLog&) = delete;

  // EAL's --log-level for the level of our own log.
  static std::string eal();

  // Forgets the errors so far.
  void clearErrors();
  // The last errors since then, in one line; empty if there were none.
  std::string errors() const;

 private:
  static ssize_t write(void* log, const char* text, size_t size);
  void take(std::string line);

  FILE* stream_;
  mutable Mutex mutex_;
  std::deque<std::string> errors_ GUARDED_BY(mutex_);
};

}  // namespace vdpa::pmd
