// See the header.
#include "cni/device_info.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cni/result.h"
#include "common/atomic_file.h"
#include "common/naming.h"

namespace vdpa::cni {
namespace {

using nlohmann::json;

// The keys that the specification requires, and the address of a PCI device.
json describe(const datapath::v1::Attachment& attachment) {
  if (hasSocket(attachment))
    return {{"type", "vhost-user"},
            {"version", "1.1.0"},
            {"vhost-user", {{"mode", "client"}, {"path", attachment.socket()}}}};
  const bool netdev = attachment.socket().empty();
  json vdpa{{"parent-device", attachment.vdpa()},
            {"driver", netdev ? "virtio" : "vhost"},
            {"path", netdev ? attachment.virtio() : attachment.socket()}};
  if (isPciAddress(attachment.device_id())) vdpa["pci-address"] = attachment.device_id();
  return {{"type", "vdpa"}, {"version", "1.1.0"}, {"vdpa", vdpa}};
}

// An empty object if there is nothing, or nothing of use.
json readInfo(const std::string& path) {
  try {
    json found = json::parse(readFile(path));
    if (found.is_object()) return found;
  } catch (const std::exception&) {
    // It is written anew.
  }
  return json::object();
}

}  // namespace

void writeDeviceInfo(const std::string& path, const datapath::v1::Attachment& attachment) {
  const json ours = describe(attachment), found = readInfo(path);
  json wanted = found.value("type", json()) == ours.at("type") ? found : json::object();
  wanted.merge_patch(ours);
  if (wanted == found) return;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  writeFileAtomically(path, wanted.dump(), Durability::memory);
}

}  // namespace vdpa::cni
