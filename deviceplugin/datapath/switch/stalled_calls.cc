#include "deviceplugin/datapath/switch/stalled_calls.h"

#include <sys/eventfd.h>

#include <cstddef>
#include <vector>

#include "common/errors.h"

namespace vdpa::vswitch {

StalledCalls::StalledCalls()
    : alarm_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd")) {}

void StalledCalls::report(int vid) {
  if (vid < 0 || static_cast<size_t>(vid) >= stalled_.size()) return;
  stalled_[static_cast<size_t>(vid)].store(true);
  ::eventfd_write(alarm_.get(), 1);
}

std::vector<int> StalledCalls::take() {
  eventfd_t ignored;
  ::eventfd_read(alarm_.get(), &ignored);
  std::vector<int> vids;
  for (size_t vid = 0; vid < stalled_.size(); ++vid)
    if (stalled_[vid].exchange(false)) vids.push_back(static_cast<int>(vid));
  return vids;
}

void StalledCalls::forget(int vid) {
  if (vid >= 0 && static_cast<size_t>(vid) < stalled_.size())
    stalled_[static_cast<size_t>(vid)].store(false);
}

}  // namespace vdpa::vswitch
