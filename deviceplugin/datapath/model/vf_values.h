// The settings of a VF in its PF's driver.
#pragma once

#include "common/port_settings.h"

namespace vdpa::datapath {

// Without an MTU, which is not the PF's, and without the settings that only vdpa-switch has. An
// absent spoofCheck or trust is one that the driver doesn't report, an absent MAC one that the VF's
// driver chooses.
using VfValues = PortSettings;

// The values of a VF whose driver reports none.
inline VfValues unreportedVf() {
  VfValues values = defaultSettings();
  values.mtu.reset();
  values.spoofCheck.reset();
  values.trust.reset();
  forEachSetting(
      [](const Setting& setting, auto& value) {
        if (setting.switchOnly) value.reset();
      },
      values);
  return values;
}

// The settings that one request changes.
enum class VfPart { mac, vlan, rate, spoofCheck, trust, linkState };

}  // namespace vdpa::datapath
