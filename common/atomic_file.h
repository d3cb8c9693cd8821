// Writes files that other programs may be reading: they see the old or the new content, never a
// part.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

namespace vdpa {

enum class Durability {
  memory,  // survives the death of the process
  whole,   // after a power cut: the old or the new content, never a part: the file is synced
  disk,    // survives a power cut: the file and its directory are synced
};

// Writes `content` to a temporary file beside `path` and renames it to `path`. Throws
// std::system_error naming the path; the old file is then untouched and no temporary file is left.
void writeFileAtomically(const std::string& path, std::string_view content, Durability durability,
                         mode_t mode = 0644);

// The directory of a file: "." for a mere name.
std::string directoryOf(const std::string& path);

// The whole file. Throws std::system_error naming the path.
std::string readFile(const std::string& path);

}  // namespace vdpa
