// The time since an event, for people.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string>

namespace vdpa::ctl {

// Both in seconds since 1970. Never below 0 s, even if the clock was set back.
inline std::string age(int64_t created, int64_t now) {
  if (created > now) return "0s";
  const uint64_t seconds = static_cast<uint64_t>(now) - static_cast<uint64_t>(created);
  if (seconds < 120) return fmt::format("{}s", seconds);
  if (seconds < 2 * 3600) return fmt::format("{}m", seconds / 60);
  if (seconds < 48 * 3600) return fmt::format("{}h", seconds / 3600);
  return fmt::format("{}d", seconds / 86400);
}

}  // namespace vdpa::ctl
