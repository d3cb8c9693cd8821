// One logging set-up for all programs: lines of text for people, JSON for collectors, always on
// standard error.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace vdpa {

// `level`: trace, debug, info, warning, error. `format`: text or json. Throws std::invalid_argument
// with what was expected. To be called once, at the start of main.
void initLogging(const std::string& program, const std::string& level, const std::string& format);

}  // namespace vdpa
