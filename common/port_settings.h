// The settings of a device's port, which a network's configuration may request.
//
// One type serves for all of their uses: requests (the CNI plugin, messages), reports (a VF's
// driver) and settings in force (owner records, the switch's ports). To add a setting, add its
// field to datapath.proto, and to this file a member, a line in forEachSetting() and two lines for
// messages; then the code that puts it into effect. Configuration, records, comparisons, refusals
// and vdpactl walk forEachSetting().
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "common/mac_address.h"
#include "common/vlan_ranges.h"

namespace vdpa {

// The EtherType of a VLAN's tags: IEEE 802.1Q's or 802.1ad's.
enum class VlanProtocol { dot1q, dot1ad };
// A VF's link: as its PF's (`automatic`), or always up or down.
enum class LinkState { automatic, enable, disable };

template <typename Type>
concept Enumeration = std::is_enum_v<Type>;

// Their words in configuration, messages and records, in the order of the values.
inline constexpr std::array<const char*, 2> kVlanProtocols{"802.1q", "802.1ad"};
inline constexpr std::array<const char*, 3> kLinkStates{"auto", "enable", "disable"};
constexpr const auto& wordsOf(VlanProtocol) {
  return kVlanProtocols;
}
constexpr const auto& wordsOf(LinkState) {
  return kLinkStates;
}

// A setting is absent if it was not requested, is not reported, or is not known yet. None is absent
// from the settings in force, except for a MAC or an MTU that only the opened device reports.
struct PortSettings {
  std::optional<MacAddress> mac;
  // Of untagged frames: of a trunk its native VLAN, else the port's only one. 0: none; a trunk then
  // has no untagged frames.
  std::optional<unsigned> vlan;
  std::optional<unsigned> vlanQos;
  std::optional<VlanProtocol> vlanProto;
  std::optional<bool> spoofCheck;
  std::optional<bool> trust;
  std::optional<LinkState> linkState;
  std::optional<unsigned> minTxRate;         // Mbit/s; 0: none
  std::optional<unsigned> maxTxRate;         // Mbit/s; 0: no limit
  std::optional<unsigned> mtu;               // bytes of layer-3 payload
  std::optional<VlanRanges> vlanTrunk = {};  // of tagged frames, without `vlan`; empty: no trunk
  std::optional<unsigned> maxRxRate = {};    // Mbit/s; 0: no limit
  // KiB that may pass at once after a silence, of each direction that has a rate. 0: the rate's
  // bytes of 10 ms.
  std::optional<unsigned> burst = {};

  bool operator==(const PortSettings&) const = default;
};

// The names of a setting, which are literals, and its limits.
struct Setting {
  std::string_view key;     // as sriov-cni names it, in configurations and in texts for people
  std::string_view record;  // in an owner record
  unsigned low = 0;         // a number's lowest value
  unsigned high = 0;        // and its highest
  bool since010 = true;     // false: owner records of earlier releases lack it
  bool switchOnly = false;  // only a port of vdpa-switch can have it
};

inline constexpr unsigned kMaxRate = 1000000;   // Mbit/s
inline constexpr unsigned kMaxBurst = 1048576;  // KiB: 1 GiB
inline constexpr unsigned kMinMtu = 68;         // RFC 791's least

// Calls visit(setting, value...) for each setting, with its value in each of `all`.
template <typename Visit, typename... Settings>
void forEachSetting(const Visit& visit, Settings&... all) {
  visit(Setting{"mac", "mac"}, all.mac...);
  visit(Setting{"vlan", "vlan", 0, kMaxVlan}, all.vlan...);
  visit(Setting{"vlanQoS", "vlanQos", 0, 7}, all.vlanQos...);
  visit(Setting{"vlanProto", "vlanProto"}, all.vlanProto...);
  visit(Setting{"mtu", "mtu", kMinMtu, 65535}, all.mtu...);
  visit(Setting{"spoofchk", "spoofCheck"}, all.spoofCheck...);
  visit(Setting{"trust", "trust"}, all.trust...);
  visit(Setting{"link_state", "linkState"}, all.linkState...);
  visit(Setting{"min_tx_rate", "minTxRate", 0, kMaxRate}, all.minTxRate...);
  visit(Setting{"max_tx_rate", "maxTxRate", 0, kMaxRate}, all.maxTxRate...);
  visit(Setting{"vlanTrunk", "vlanTrunk", 0, 0, false, true}, all.vlanTrunk...);
  visit(Setting{"max_rx_rate", "maxRxRate", 0, kMaxRate, false, true}, all.maxRxRate...);
  visit(Setting{"burst", "burst", 0, kMaxBurst, false, true}, all.burst...);
}

// The settings in force if none is requested: untagged, an MTU of 1500, all else off, empty or 0;
// no MAC.
PortSettings defaultSettings();

// Replaces those settings of `port` that `over` has.
void overlay(PortSettings& port, const PortSettings& over);

// Throws std::invalid_argument that names values which exclude each other, of requested settings as
// well as of those in force: a native VLAN that is also tagged, a burst without a rate.
void checkTogether(const PortSettings& settings);

// --- The values as texts.

// Values that are texts in configurations and records.
template <typename Value>
concept Text =
    Enumeration<Value> || std::is_same_v<Value, MacAddress> || std::is_same_v<Value, VlanRanges>;

inline std::string textOf(const MacAddress& mac) {
  return mac.text();
}
inline std::string textOf(const VlanRanges& vlans) {
  return vlans.text();
}
inline std::string textOf(unsigned number) {
  return std::to_string(number);
}
inline std::string textOf(bool on) {
  return on ? "true" : "false";
}
template <Enumeration Word>
std::string textOf(Word word) {
  return wordsOf(word)[static_cast<size_t>(word)];
}
template <typename Value>
std::string textOf(const std::optional<Value>& value, const char* absent = "none") {
  return value ? textOf(*value) : absent;
}

// These throw std::invalid_argument "vlanProto 'x': expected 802.1q or 802.1ad" with `key`. Only a
// unicast MAC is accepted. Words may be in either case: IEEE writes 802.1Q.
void readText(std::string_view key, const std::string& text, MacAddress& mac);
void readText(std::string_view key, const std::string& text, VlanRanges& vlans);
size_t indexOfWord(std::string_view key, const std::string& text,
                   std::span<const char* const> words);
template <Enumeration Word>
void readText(std::string_view key, const std::string& text, Word& word) {
  word = static_cast<Word>(indexOfWord(key, text, wordsOf(word)));
}

// --- Messages: datapath.v1.Settings, a template parameter because the CNI plugin has it for
// protobuf's lite runtime, the others for the full one. An empty text and an MTU of 0 are absent.

// `refuse` gets the problem of a text that can't be read; if it returns, the value is the default.
template <typename Message, typename Refuse>
PortSettings settingsFromMessage(const Message& message, const Refuse& refuse) {
  PortSettings settings;
  const auto text = [&](std::string_view key, const std::string& given, auto& value) {
    if (given.empty()) return;
    value.emplace();
    try {
      readText(key, given, *value);
    } catch (const std::invalid_argument& error) {
      refuse(std::string(error.what()));
    }
  };
  text("mac", message.mac(), settings.mac);
  if (message.has_vlan()) settings.vlan = message.vlan();
  if (message.has_vlan_qos()) settings.vlanQos = message.vlan_qos();
  text("vlanProto", message.vlan_proto(), settings.vlanProto);
  if (message.has_spoof_check()) settings.spoofCheck = message.spoof_check();
  if (message.has_trust()) settings.trust = message.trust();
  text("link_state", message.link_state(), settings.linkState);
  if (message.has_min_tx_rate()) settings.minTxRate = message.min_tx_rate();
  if (message.has_max_tx_rate()) settings.maxTxRate = message.max_tx_rate();
  if (message.mtu() != 0) settings.mtu = message.mtu();
  text("vlanTrunk", message.vlan_trunk(), settings.vlanTrunk);
  if (message.has_max_rx_rate()) settings.maxRxRate = message.max_rx_rate();
  if (message.has_burst()) settings.burst = message.burst();
  return settings;
}

template <typename Message>
void fillMessage(Message& message, const PortSettings& settings) {
  if (settings.mac) message.set_mac(textOf(*settings.mac));
  if (settings.vlan) message.set_vlan(*settings.vlan);
  if (settings.vlanQos) message.set_vlan_qos(*settings.vlanQos);
  if (settings.vlanProto) message.set_vlan_proto(textOf(*settings.vlanProto));
  if (settings.spoofCheck) message.set_spoof_check(*settings.spoofCheck);
  if (settings.trust) message.set_trust(*settings.trust);
  if (settings.linkState) message.set_link_state(textOf(*settings.linkState));
  if (settings.minTxRate) message.set_min_tx_rate(*settings.minTxRate);
  if (settings.maxTxRate) message.set_max_tx_rate(*settings.maxTxRate);
  if (settings.mtu) message.set_mtu(*settings.mtu);
  if (settings.vlanTrunk) message.set_vlan_trunk(textOf(*settings.vlanTrunk));
  if (settings.maxRxRate) message.set_max_rx_rate(*settings.maxRxRate);
  if (settings.burst) message.set_burst(*settings.burst);
}

}  // namespace vdpa
