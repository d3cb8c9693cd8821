// What NICs count for their functions: of a VF by its PF (IFLA_VF_STATS), else by its representor;
// of an SF by its representor. All of a PF's functions cost one walk over its directory and one
// request.
//
// Source: Linux 6.12: rtnl_fill_vfinfo() of net/core/rtnetlink.c;
// Documentation/networking/representors.rst, by which a representor's directions are those of the
// switch's port, so that it transmits what its function receives;
// Documentation/ABI/testing/sysfs-class-net-statistics and sysfs-bus-auxiliary (sfnum).
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "deviceplugin/datapath/model/device_counters.h"
#include "deviceplugin/datapath/model/offered_devices.h"

namespace vdpa::datapath {

// By their numbers on the PF.
using VfCounters = std::map<unsigned, DeviceCounters>;

// Of all VFs in a link's attributes, after netlink's header and ifinfomsg. A driver that counts
// nothing reports zeros.
VfCounters parseVfCounters(std::span<const std::byte> attributes);

// Of the PF whose netdev has this interface index, in the calling thread's network namespace. Empty
// if it is gone. Throws std::system_error.
VfCounters readVfCounters(unsigned pfIndex);

// Calls `read`, and reports what it throws; or neither, when the time is over.
using Attempt = std::function<void(const std::string& what, const std::function<void()>& read)>;

// By device ID, for those of `devices` (also by ID) that are a VF or an SF for which something is
// counted. What cannot be read is left out. Each PF is read in an attempt of its own. `readVfs` is
// readVfCounters(), or a test's.
std::map<std::string, DeviceCounters> readFunctionCounters(
    const std::string& sysfs, const std::map<std::string, DeviceConfig>& devices,
    const Attempt& attempt,
    const std::function<VfCounters(unsigned pfIndex)>& readVfs = readVfCounters);

}  // namespace vdpa::datapath
