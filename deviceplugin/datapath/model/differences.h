// Collects for Check every way in which an attachment differs from its record.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/model/attachment.h"

namespace vdpa::datapath {

class Differences {
 public:
  template <typename T>
  void compare(std::string_view what, const T& wanted, const T& found) {
    if (wanted != found) add("{} is {}; expected {}", what, found, wanted);
  }
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    texts_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  std::vector<std::string> take() { return std::move(texts_); }

 private:
  std::vector<std::string> texts_;
};

inline void comparePorts(Differences& differences, const PortSettings& wanted,
                         const PortSettings& found) {
  differences.compare("mac", wanted.mac, found.mac);
  differences.compare("vlan", wanted.vlan, found.vlan);
  differences.compare("vlanQoS", wanted.vlanQos, found.vlanQos);
  differences.compare("vlanProto", wanted.vlanProto, found.vlanProto);
  differences.compare("mtu", wanted.mtu, found.mtu);
  differences.compare("link_state", wanted.linkState, found.linkState);
  differences.compare("spoofchk", wanted.spoofCheck, found.spoofCheck);
  differences.compare("trust", wanted.trust, found.trust);
  differences.compare("min_tx_rate", wanted.minTxRate, found.minTxRate);
  differences.compare("max_tx_rate", wanted.maxTxRate, found.maxTxRate);
}

}  // namespace vdpa::datapath
