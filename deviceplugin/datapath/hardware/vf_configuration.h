// The changes that an attachment makes to its hardware: a VF's settings through its PF, a vDPA
// device's MAC by the kernel's vdpa family. They are planned, recorded, applied, read back, and
// restored in reverse order. Only requested settings are changed; if no MAC is requested, one is
// chosen.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "common/mac_address.h"
#include "common/port_settings.h"
#include "deviceplugin/datapath/hardware/requested_attributes.h"
#include "deviceplugin/datapath/hardware/vf.h"
#include "deviceplugin/datapath/model/differences.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

class VfConfiguration {
 public:
  // Access to the kernel. `find` as findVf().
  struct Access {
    std::function<bool(const std::string& pciAddress)> present;  // the function itself
    std::function<std::optional<Vf>(const std::string& pciAddress)> find;
    // A vDPA device's MAC, absent if it reports none; and setting it, false if that isn't possible.
    std::function<std::optional<MacAddress>(const std::string& vdpa)> vdpaMac;
    std::function<bool(const std::string& vdpa, const MacAddress& mac)> setVdpaMac;
    // Its MTU, 0 if it has none.
    std::function<unsigned(const std::string& vdpa)> vdpaMtu = {};
  };
  // By rtnetlink; without the last three a vDPA device has its own MAC and MTU.
  static Access kernels(const std::string& sysfs,
                        std::function<std::optional<MacAddress>(const std::string& vdpa)> vdpaMac,
                        std::function<bool(const std::string&, const MacAddress&)> setVdpaMac,
                        std::function<unsigned(const std::string& vdpa)> vdpaMtu);

  explicit VfConfiguration(Access access) : access_(std::move(access)) {}

  // Records in `record` what is found, what will be changed, and the resulting settings. Changes
  // nothing. `madeWith`: a MAC that the vDPA device is remade with before apply(); absent: it keeps
  // its own. Throws RefusedError (invalidArgument) that names what can't be set, and where.
  void plan(OwnerRecord& record, const PortSettings& settings,
            const std::optional<MacAddress>& madeWith = {}) const;
  // Applies the plan and reads it back: a VF's settings by one message, then all of them by one
  // more. A MAC that was not requested and can't be set becomes the device's own, or absent if it
  // reports none. Exceptions name device, setting and PF.
  void apply(OwnerRecord& record) const;
  // Restores what was planned, whether it was changed or not. Missing hardware is no error, but an
  // invisible PF is: it may come back. The exception names the first setting that stays.
  void restore(const OwnerRecord& record) const;
  void check(const OwnerRecord& record, Differences& differences) const;

  // The values that a vDPA device reports.
  VdpaFacts factsOf(const std::string& vdpa) const;

 private:
  // A VF with what it has now; without values it can't be configured.
  struct Look {
    std::optional<Vf> vf;
    std::optional<VfValues> values;
  };
  Look look(const std::string& pciAddress) const;

  void planMac(OwnerRecord& record, const std::optional<VfValues>& vf,
               const std::optional<MacAddress>& madeWith) const;
  std::optional<MacAddress> ownMac(const OwnerRecord& record) const;
  bool applyVdpaMac(OwnerRecord& record) const;
  void applyToVf(OwnerRecord& record) const;
  void keepOwnMac(OwnerRecord& record) const;
  static void planOwnMac(OwnerRecord& record, const std::optional<MacAddress>& own);
  static bool hasMacToSet(const OwnerRecord& record);
  static bool hasVfMac(const OwnerRecord& record);
  static VfValues valuesOf(const PortSettings& port);
  static std::string whyNoVf(const std::optional<Vf>& vf);
  void restoreVf(const OwnerRecord& record) const;
  void restoreVdpaMac(const OwnerRecord& record) const;

  const Access access_;
};

}  // namespace vdpa::datapath
