// Names in sysfs that say how functions and netdevs belong together.
//
// Sources: Documentation/ABI/testing/sysfs-bus-pci and sysfs-class-net; phys_port_name of a
// representor as devlink_port_phys_port_name_get() of net/devlink/port.c in Linux 6.12 makes it.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <system_error>

namespace vdpa {

// A PF's links to its VFs: "virtfn0", "virtfn1", ...
constexpr std::string_view kVfLink = "virtfn";

// The VF's number; nothing if the entry of a PF's directory is no such link.
inline std::optional<unsigned> vfNumber(std::string_view entry) {
  if (!entry.starts_with(kVfLink)) return std::nullopt;
  const char* end = entry.data() + entry.size();
  unsigned number = 0;
  const auto parsed = std::from_chars(entry.data() + kVfLink.size(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return number;
}

// Whether a netdev with this phys_port_name represents a function behind a port, as in switchdev
// mode: "pf0vf1", "c1pf0sf2". "p0" is a port itself.
inline bool isRepresentor(std::string_view physPortName) {
  return physPortName.starts_with("pf") || physPortName.starts_with('c');
}

}  // namespace vdpa
