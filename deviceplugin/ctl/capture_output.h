// Where a capture goes: a file, or a pipe whose reader may be slow, stopped or gone.
#pragma once

#include <cstdint>
#include <string>

#include "common/unique_fd.h"

namespace vdpa::ctl {

class CaptureOutput {
 public:
  // "-": standard output, which must not be a terminal. A file has mode 0600, for what it holds,
  // and keeps its content until the first write. Throws std::runtime_error naming it.
  explicit CaptureOutput(const std::string& file);

  // Bytes written so far.
  uint64_t size() const { return size_; }
  // Whether it is standard output, whose reader tells when it has enough.
  bool isStandard() const { return standard_; }

  // Writes what there is room for, and takes it out of `bytes`. Never waits for a pipe's reader.
  // False: the reader is gone. Throws std::system_error.
  bool write(std::string& bytes);
  int fd() const { return own_ ? own_.get() : STDOUT_FILENO; }  // to wait for room

 private:
  std::string name_;
  bool standard_;
  uint64_t size_ = 0;
  UniqueFd own_;
};

}  // namespace vdpa::ctl
