// See the header.
#include "deviceplugin/datapath/owner_record.h"

#include <fmt/format.h>

#include <stdexcept>

namespace vdpa {
namespace {

constexpr int kVersion = 1;

const char* phaseName(Phase phase) {
  switch (phase) {
    case Phase::attaching:
      return "attaching";
    case Phase::attached:
      return "attached";
    case Phase::detaching:
      return "detaching";
  }
  return "";
}

Phase phaseFromName(const std::string& name) {
  for (const Phase phase : {Phase::attaching, Phase::attached, Phase::detaching})
    if (name == phaseName(phase)) return phase;
  throw std::runtime_error(fmt::format("unknown phase '{}'", name));
}

}  // namespace

nlohmann::json toJson(const OwnerRecord& record) {
  const Attachment& attachment = record.attachment;
  const Owner& owner = attachment.owner;
  const PortSettings& port = attachment.port;
  return {{"version", kVersion},
          {"bootId", record.bootId},
          {"phase", phaseName(record.phase)},
          {"device", attachment.deviceId},
          {"resource", attachment.resource},
          {"created", attachment.created},
          {"owner",
           {{"container", owner.containerId},
            {"interface", owner.interface},
            {"netns", owner.netns},
            {"netnsDevice", record.netns.device},
            {"netnsInode", record.netns.inode},
            {"network", owner.network},
            {"podNamespace", owner.podNamespace},
            {"podName", owner.podName},
            {"podUid", owner.podUid}}},
          {"port",
           {{"mac", port.mac},
            {"vlan", port.vlan},
            {"mtu", port.mtu},
            {"linkUp", port.linkUp},
            {"spoofCheck", port.spoofCheck}}},
          {"queuePairs", attachment.queuePairs},
          {"queueSize", attachment.queueSize},
          {"ips", attachment.ips},
          {"socket",
           {{"uid", record.socket.uid},
            {"gid", record.socket.gid},
            {"mode", record.socket.mode},
            {"selinuxLabel", record.socket.selinuxLabel}}},
          {"switch",
           {{"queuePairs", record.software.queuePairs},
            {"mtu", record.software.mtu},
            {"uplink", record.software.uplink},
            {"cores", record.software.cores}}}};
}

OwnerRecord ownerRecordFromJson(const nlohmann::json& json) {
  const int version = json.at("version").get<int>();
  if (version != kVersion)
    throw std::runtime_error(
        fmt::format("it has version {}; this program reads version {}", version, kVersion));
  OwnerRecord record;
  json.at("bootId").get_to(record.bootId);
  record.phase = phaseFromName(json.at("phase").get<std::string>());

  Attachment& attachment = record.attachment;
  json.at("device").get_to(attachment.deviceId);
  json.at("resource").get_to(attachment.resource);
  json.at("created").get_to(attachment.created);
  json.at("queuePairs").get_to(attachment.queuePairs);
  json.at("queueSize").get_to(attachment.queueSize);
  json.at("ips").get_to(attachment.ips);

  const auto& owner = json.at("owner");
  owner.at("container").get_to(attachment.owner.containerId);
  owner.at("interface").get_to(attachment.owner.interface);
  owner.at("netns").get_to(attachment.owner.netns);
  owner.at("netnsDevice").get_to(record.netns.device);
  owner.at("netnsInode").get_to(record.netns.inode);
  owner.at("network").get_to(attachment.owner.network);
  owner.at("podNamespace").get_to(attachment.owner.podNamespace);
  owner.at("podName").get_to(attachment.owner.podName);
  owner.at("podUid").get_to(attachment.owner.podUid);

  const auto& port = json.at("port");
  port.at("mac").get_to(attachment.port.mac);
  port.at("vlan").get_to(attachment.port.vlan);
  port.at("mtu").get_to(attachment.port.mtu);
  port.at("linkUp").get_to(attachment.port.linkUp);
  port.at("spoofCheck").get_to(attachment.port.spoofCheck);

  const auto& socket = json.at("socket");
  socket.at("uid").get_to(record.socket.uid);
  socket.at("gid").get_to(record.socket.gid);
  socket.at("mode").get_to(record.socket.mode);
  socket.at("selinuxLabel").get_to(record.socket.selinuxLabel);

  const auto& software = json.at("switch");
  software.at("queuePairs").get_to(record.software.queuePairs);
  software.at("mtu").get_to(record.software.mtu);
  software.at("uplink").get_to(record.software.uplink);
  software.at("cores").get_to(record.software.cores);
  return record;
}

}  // namespace vdpa
