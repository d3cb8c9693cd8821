// Reads sysfs relative to an open directory: no path is walked twice, and a file that vanishes
// meanwhile is a result, not an error.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "common/unique_fd.h"

namespace vdpa::plugin {

class Directory {
 public:
  // If it can't be opened, isOpen() is false.
  explicit Directory(const std::string& path);
  Directory(const Directory& parent, const std::string& name);

  bool isOpen() const { return static_cast<bool>(fd_); }
  int error() const { return error_; }  // errno of the failed open

  // All entries except "." and "..", once: a second call finds none. `isLink` needs no further file
  // operation.
  void forEach(const std::function<void(const std::string& name, bool isLink)>& entry) const;
  // A small file's content without the last newline.
  std::optional<std::string> read(const std::string& name) const;
  // A link's target.
  std::optional<std::string> link(const std::string& name) const;

 private:
  UniqueFd fd_;
  int error_ = 0;
};

// The last component of a path.
std::string_view lastPart(std::string_view path);

}  // namespace vdpa::plugin
