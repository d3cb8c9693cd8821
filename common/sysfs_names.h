// Names in sysfs that say how functions and netdevs belong together.
//
// Sources: Documentation/ABI/testing/sysfs-bus-pci and sysfs-class-net; phys_port_name of a
// representor as devlink_port_phys_port_name_get() of net/devlink/port.c in Linux 6.12 makes it.
#pragma once

#include <charconv>
#include <compare>
#include <cstddef>
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

// A function that a netdev represents.
struct Represented {
  enum class Kind { vf, sf };
  Kind kind = Kind::vf;
  unsigned number = 0;  // of the VF or SF, among those of its PF
  auto operator<=>(const Represented&) const = default;
};

// Of "pf0vf1" or "pf0sf88"; nothing for other names, and for functions of another controller, which
// are not of this host.
inline std::optional<Represented> represented(std::string_view physPortName) {
  const char* end = physPortName.data() + physPortName.size();
  const auto number = [end](const char*& from) -> std::optional<unsigned> {
    unsigned value = 0;
    const auto parsed = std::from_chars(from, end, value);
    if (parsed.ec != std::errc()) return std::nullopt;
    from = parsed.ptr;
    return value;
  };
  if (!physPortName.starts_with("pf")) return std::nullopt;
  const char* rest = physPortName.data() + 2;
  if (!number(rest)) return std::nullopt;
  const std::string_view function(rest, static_cast<size_t>(end - rest));
  Represented found;
  if (function.starts_with("sf"))
    found.kind = Represented::Kind::sf;
  else if (!function.starts_with("vf"))
    return std::nullopt;
  rest += 2;
  const auto value = number(rest);
  if (!value || rest != end) return std::nullopt;
  found.number = *value;
  return found;
}

}  // namespace vdpa
