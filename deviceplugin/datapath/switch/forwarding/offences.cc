#include "deviceplugin/datapath/switch/forwarding/offences.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/errors.h"
#include "deviceplugin/datapath/switch/forwarding/mac_table.h"

namespace vdpa::vswitch {

Offences::Offences()
    : alarm_(checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd")) {}

void Offences::report(MacTable::Port port, Offence offence) {
  if (port >= reported_.size()) return;
  const int before = errno;  // of what a signal interrupted
  auto none = static_cast<uint8_t>(Offence::kNone);
  reported_[port].compare_exchange_strong(none, static_cast<uint8_t>(offence));
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(alarm_.get(), &one, sizeof one);
  errno = before;
}

std::vector<Offences::Report> Offences::take() {
  eventfd_t ignored;
  ::eventfd_read(alarm_.get(), &ignored);
  std::vector<Report> reports;
  for (size_t port = 0; port < reported_.size(); ++port) {
    const auto offence =
        static_cast<Offence>(reported_[port].exchange(static_cast<uint8_t>(Offence::kNone)));
    if (offence != Offence::kNone) reports.push_back({static_cast<MacTable::Port>(port), offence});
  }
  return reports;
}

}  // namespace vdpa::vswitch
