// Files that other programs read while we write them: they see the old content or the new, never a
// part.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

namespace vdpa {

enum class Durability {
  memory,  // survives the death of the process
  whole,   // after a power cut it is the old content or the new, never a part: the file is synced
  disk,    // survives a power cut: the file and its directory are synced
};

// Writes `content` to a temporary file beside `path` and renames it over. Throws std::system_error
// naming the path; the old file is then untouched and no temporary file is left.
void writeFileAtomically(const std::string& path, std::string_view content, Durability durability,
                         mode_t mode = 0644);

// The whole file. Throws std::system_error naming the path.
std::string readFile(const std::string& path);

}  // namespace vdpa
