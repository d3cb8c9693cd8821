// Writes a gzipped tar archive of regular files, in the format that POSIX.1-1988 calls ustar, which
// every tar reads. zlib compresses; a header is one block of text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

struct gzFile_s;

namespace vdpa::ctl {

class TarGz {
 public:
  // Takes a descriptor that is open for writing; `what` names it in errors. Throws
  // std::runtime_error.
  TarGz(int fd, std::string what);
  ~TarGz();
  TarGz(const TarGz&) = delete;
  TarGz& operator=(const TarGz&) = delete;

  // `path` has at most 100 bytes, and no file has the same; `time` is in seconds since 1970. Throws
  // std::runtime_error.
  void add(const std::string& path, std::string_view content, uint64_t time);
  // Must be called at the end; without it the archive is incomplete.
  void finish();

 private:
  void write(std::string_view bytes);

  const std::string what_;
  gzFile_s* file_;
};

}  // namespace vdpa::ctl
