// A burst, then one line per second, and the count of suppressed lines.
#include "common/log_limiter.h"

#include <catch2/catch.hpp>

using namespace vdpa;
using namespace std::chrono_literals;

TEST_CASE("log lines are limited and the suppressed ones counted") {
  LogLimiter limiter;
  LogLimiter::Clock::time_point now{1h};
  for (int i = 0; i < 5; ++i) CHECK(limiter.admit(now) == 0u);
  for (int i = 0; i < 7; ++i) CHECK_FALSE(limiter.admit(now));
  now += 1s;
  CHECK(limiter.admit(now) == 7u);
  CHECK_FALSE(limiter.admit(now));
  now += 1h;
  for (int i = 0; i < 5; ++i) CHECK(limiter.admit(now).has_value());
  CHECK_FALSE(limiter.admit(now));
}
