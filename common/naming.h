// The names that programs, pods and people use: resources, their variables, device IDs and paths.
// Derived here and nowhere else.
#pragma once

#include <string>
#include <string_view>

namespace vdpa {

// [a-z0-9]([-a-z0-9_.]*[a-z0-9])?, at most 63 bytes: the part after the slash of an extended
// resource.
bool isResourceName(std::string_view name);
// A DNS subdomain with at least one dot: the part before the slash.
bool isResourcePrefix(std::string_view prefix);

// "0000:65:00.2": domain, bus, device and function in lower-case hex digits.
bool isPciAddress(const std::string& text);

// "vdpa.io/nic" -> "VDPA_IO_NIC": upper case, everything but letters and digits becomes '_'.
std::string variableName(std::string_view resource);
// "vdpa.io/nic" -> "vdpa.io-nic": a file name, as device-info files and switches use it.
std::string fileName(std::string_view resource);
// ("nic", 0) -> "nic-0": the ID of a software port.
std::string softwareDeviceId(std::string_view name, unsigned index);

// As the pod sees them.
std::string podDirectory(std::string_view deviceId);  // /run/vdpa/<id>
std::string podSocket(std::string_view deviceId);     // /run/vdpa/<id>/vhost.sock

}  // namespace vdpa
