#include "deviceplugin/datapath/pmd/dpdk_log.h"

#include <rte_log.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "common/errors.h"
#include "common/log.h"
#include "common/mutex.h"

namespace vdpa::pmd {
namespace {

constexpr size_t kErrors = 4;  // the first alone seldom explains it, twenty are too many

log::Level levelOf(int dpdk) {
  if (dpdk < static_cast<int>(RTE_LOG_EMERG)) return log::Level::info;  // not within rte_log()
  if (dpdk <= static_cast<int>(RTE_LOG_ERR)) return log::Level::error;
  if (dpdk == static_cast<int>(RTE_LOG_WARNING)) return log::Level::warn;
  if (dpdk == static_cast<int>(RTE_LOG_NOTICE)) return log::Level::info;
  return dpdk == static_cast<int>(RTE_LOG_INFO) ? log::Level::debug : log::Level::trace;
}

}  // namespace

DpdkLog::DpdkLog() {
  cookie_io_functions_t functions{};
  functions.write = write;
  stream_ = ::fopencookie(this, "w", functions);
  if (!stream_) throw systemError(errno, "cannot capture DPDK's log");
  rte_openlog_stream(stream_);
}

DpdkLog::~DpdkLog() {
  rte_openlog_stream(nullptr);
  std::fclose(stream_);
}

std::string DpdkLog::eal() {
  const auto level = log::lowest();
  if (level <= log::Level::trace) return "--log-level=*:debug";
  return level == log::Level::debug ? "--log-level=*:info" : "--log-level=*:notice";
}

void DpdkLog::clearErrors() {
  Lock lock(mutex_);
  errors_.clear();
}

std::string DpdkLog::errors() const {
  Lock lock(mutex_);
  std::string text;
  for (const auto& line : errors_) text += (text.empty() ? "" : "; ") + line;
  return text;
}

// rte_log() flushes after each message, so that this gets whole ones.
ssize_t DpdkLog::write(void* log, const char* text, size_t size) {
  std::string_view rest(text, size);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    if (end > 0) static_cast<DpdkLog*>(log)->take(std::string(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return static_cast<ssize_t>(size);
}

void DpdkLog::take(std::string line) {
  const auto level = levelOf(rte_log_cur_msg_loglevel());
  log::at(level, "DPDK: {}", line);
  if (level < log::Level::error) return;
  Lock lock(mutex_);
  if (errors_.size() == kErrors) errors_.pop_front();
  errors_.push_back(std::move(line));
}

}  // namespace vdpa::pmd
