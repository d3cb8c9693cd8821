// Waiting for a condition, with a deadline.
#pragma once

#include <catch2/catch.hpp>

#include <chrono>
#include <string>
#include <thread>

namespace vdpa {

// Returns when `condition` holds; fails the test with `what` after 20 s.
template <typename Condition>
void waitUntil(const std::string& what, Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) FAIL("not within 20 s: " << what);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace vdpa
