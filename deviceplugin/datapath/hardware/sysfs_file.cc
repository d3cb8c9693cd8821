#include "deviceplugin/datapath/hardware/sysfs_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa::datapath {

void writeAttribute(const std::string& path, const std::string& value) {
  const std::string shown = value == "\n" ? "an empty line" : "'" + value + "'";
  const UniqueFd file(checked(::open(path.c_str(), O_WRONLY | O_CLOEXEC),
                              "cannot open {} to write {}", path, shown));
  const ssize_t written = ::write(file.get(), value.data(), value.size());
  checked(written == static_cast<ssize_t>(value.size()) ? 0 : -1, "cannot write {} to {}", shown,
          path);
}

std::string linkName(const std::string& path) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(path, error);
  return error ? "" : target.filename().string();
}

std::string entryStarting(const std::string& directory, const std::string& prefix) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    std::string name = entry.path().filename();
    if (name.starts_with(prefix)) return name;
  }
  return "";
}

}  // namespace vdpa::datapath
