// Makes writes to an eventfd expensive, as a hostile pod does.
#pragma once

#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "common/unique_fd.h"

namespace vdpa::vswitch::test {

// So many descriptors of an eventfd, each of which some epoll instances watch.
class Watchers {
 public:
  Watchers(int event, unsigned count, unsigned epolls = 1) {
    for (unsigned i = 0; i < epolls; ++i) epolls_.emplace_back(::epoll_create1(0));
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    for (unsigned i = 0; i < count; ++i) {
      fds_.emplace_back(::dup(event));
      epoll_event entry{};
      entry.events = EPOLLIN | EPOLLET;
      const auto fails = [&](const UniqueFd& epoll) {
        return ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fds_.back().get(), &entry) != 0;
      };
      if (!fds_.back() || std::any_of(epolls_.begin(), epolls_.end(), fails)) {
        fds_.pop_back();
        break;
      }
    }
  }
  size_t count() const { return fds_.size(); }

 private:
  std::vector<UniqueFd> epolls_;
  std::vector<UniqueFd> fds_;
};

}  // namespace vdpa::vswitch::test
