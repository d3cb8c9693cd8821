// The record on disk of each vDPA device that was made: how, and what was found before.
#include <fmt/core.h>

#include <cstdint>
#include <exception>
#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/atomic_file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mac_address.h"
#include "common/port_settings.h"
#include "common/vdpa_attributes.h"
#include "deviceplugin/datapath/hardware/provisioner.h"

namespace vdpa::datapath {
namespace {

// As for owner records: raised only for records that an older reader must not use.
constexpr int kVersion = 1;
constexpr int kLatestVersion = 1;

nlohmann::json toJson(const VdpaAttributes& attributes) {
  nlohmann::json json{{"mtu", attributes.mtu}, {"mac", textOf(attributes.mac, "")}};
  if (attributes.queuePairs) json["queuePairs"] = *attributes.queuePairs;
  if (attributes.features) json["features"] = *attributes.features;
  return json;
}

VdpaAttributes attributesFromJson(const nlohmann::json& json) {
  VdpaAttributes attributes;
  json.at("mtu").get_to(attributes.mtu);
  if (const auto mac = json.at("mac").get<std::string>(); !mac.empty())
    attributes.mac = MacAddress::parseOrThrow(mac);
  if (json.contains("queuePairs")) attributes.queuePairs = json.at("queuePairs").get<unsigned>();
  if (json.contains("features")) attributes.features = json.at("features").get<uint64_t>();
  return attributes;
}

}  // namespace

std::map<std::string, Provisioner::Record> Provisioner::readRecords() const {
  std::map<std::string, Record> records;
  for (const auto& entry : std::filesystem::directory_iterator(options_.records)) {
    const std::string id = entry.path().filename();
    if (id.ends_with(".tmp")) continue;  // an unfinished write
    try {
      const auto json = parseJson(readFile(entry.path()));
      if (const int version = json.at("version").get<int>();
          version < 1 || version > kLatestVersion)
        throw std::runtime_error(fmt::format(
            "it has version {}; this program reads versions up to {}", version, kLatestVersion));
      Record record;
      record.device = id;
      json.at("vdpa").get_to(record.vdpa);
      json.at("pciAddress").get_to(record.pciAddress);
      json.at("pciDriver").get_to(record.pciDriver);
      json.at("foundDriver").get_to(record.foundDriver);
      json.at("foundOverride").get_to(record.foundOverride);
      json.at("bootId").get_to(record.bootId);
      // 0.1.0 writes none of these, and passes no attributes.
      if (json.contains("attributes")) record.attributes = attributesFromJson(json["attributes"]);
      if (json.contains("taken")) record.taken = attributesFromJson(json["taken"]);
      record.made = json.value("made", true);
      record.managementDevice = json.value("managementDevice", "");
      if (json.contains("foundMtu")) record.foundMtu = json["foundMtu"].get<unsigned>();
      records[id] = std::move(record);
    } catch (const std::exception& error) {
      log::error("{} is unreadable and ignored: {}", entry.path().string(), error.what());
    }
  }
  return records;
}

void Provisioner::write(const Record& record, Durability durability) const {
  nlohmann::json json{{"version", kVersion},
                      {"vdpa", record.vdpa},
                      {"pciAddress", record.pciAddress},
                      {"pciDriver", record.pciDriver},
                      {"foundDriver", record.foundDriver},
                      {"foundOverride", record.foundOverride},
                      {"bootId", record.bootId},
                      {"attributes", toJson(record.attributes)},
                      {"taken", toJson(record.taken)},
                      {"made", record.made},
                      {"managementDevice", record.managementDevice}};
  if (record.foundMtu) json["foundMtu"] = *record.foundMtu;
  writeFileAtomically(recordPath(record.device), jsonText(json, 2) + "\n", durability);
}

}  // namespace vdpa::datapath
