// Undoes the steps taken so far, the last one first, unless committed.
#pragma once

#include <functional>
#include <vector>

#include "common/log.h"

namespace vdpa {

class Rollback {
 public:
  Rollback() = default;
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;
  ~Rollback() {
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
      try {
        (*step)();
      } catch (const std::exception& error) {
        log::error("while undoing: {}", error.what());
      }
    }
  }

  void add(std::function<void()> undo) { steps_.push_back(std::move(undo)); }
  void commit() { steps_.clear(); }

 private:
  std::vector<std::function<void()>> steps_;
};

}  // namespace vdpa
