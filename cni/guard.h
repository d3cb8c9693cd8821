// What a command undoes when a later step of it fails.
#pragma once

#include <exception>
#include <functional>
#include <utility>

#include "common/log.h"

namespace vdpa::cni {

// Runs `undo` unless committed.
class Guard {
 public:
  explicit Guard(std::function<void()> undo) : undo_(std::move(undo)) {}
  ~Guard() {
    if (!undo_) return;
    try {
      undo_();
    } catch (const std::exception& error) {
      log::error("while undoing: {}", error.what());
    }
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  void commit() { undo_ = nullptr; }

 private:
  std::function<void()> undo_;
};

}  // namespace vdpa::cni
