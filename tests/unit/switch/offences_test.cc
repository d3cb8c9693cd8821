#include "deviceplugin/datapath/switch/forwarding/offences.h"

#include <catch2/catch.hpp>
#include <poll.h>

#include "deviceplugin/datapath/switch/forwarding/mac_table.h"

namespace {

using namespace vdpa::vswitch;

bool readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 1;
}

}  // namespace

TEST_CASE("the first offence of a port stands, until it is taken") {
  Offences offences;
  CHECK_FALSE(readable(offences.fd()));
  CHECK(offences.take().empty());

  offences.report(7, Offence::kCallBlocks);
  offences.report(7, Offence::kRing);
  offences.report(MacTable::kMaxPorts - 1, Offence::kMemory);
  offences.report(MacTable::kMaxPorts, Offence::kMemory);  // there is none
  CHECK(readable(offences.fd()));
  const auto reports = offences.take();
  REQUIRE(reports.size() == 2);
  CHECK(reports[0].port == 7);
  CHECK(reports[0].offence == Offence::kCallBlocks);
  CHECK(reports[1].port == MacTable::kMaxPorts - 1);
  CHECK(reports[1].offence == Offence::kMemory);
  CHECK_FALSE(readable(offences.fd()));
  CHECK(offences.take().empty());

  offences.report(7, Offence::kRing);
  offences.forget(7);
  CHECK(offences.take().empty());
}
