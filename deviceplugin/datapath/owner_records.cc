// See the header.
#include "deviceplugin/datapath/owner_records.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "common/errors.h"
#include "common/log.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/paths.h"

namespace vdpa {

OwnerRecords::OwnerRecords(std::string directory) : directory_(std::move(directory)) {
  makeDirectory(directory_, 0700);
}

std::vector<OwnerRecord> OwnerRecords::load() {
  std::vector<std::filesystem::path> files, unfinished;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
    if (entry.path().extension() == ".tmp") unfinished.push_back(entry.path());
  }
  for (const auto& file : unfinished) std::filesystem::remove(file);

  std::vector<OwnerRecord> records;
  for (const auto& file : files) {
    try {
      auto record = ownerRecordFromJson(nlohmann::json::parse(readFile(file)));
      if (path(record.attachment.deviceId) != file)
        throw std::runtime_error("it is about device " + record.attachment.deviceId);
      records.push_back(std::move(record));
    } catch (const std::exception& error) {
      const std::string aside = file.string() + ".bad";
      std::filesystem::rename(file, aside);
      spdlog::warn("cannot use the owner record {}: {}; set aside as {}", file.string(),
                   error.what(), aside);
    }
  }
  return records;
}

void OwnerRecords::write(const OwnerRecord& record, Durability durability) {
  writeFileAtomically(path(record.attachment.deviceId), toJson(record).dump(2) + "\n", durability,
                      0600);
}

void OwnerRecords::remove(const std::string& deviceId) {
  const std::string file = path(deviceId);
  if (::unlink(file.c_str()) < 0 && errno != ENOENT) checked(-1, "cannot remove {}", file);
}

std::string OwnerRecords::path(const std::string& deviceId) const {
  return directory_ + "/" + deviceId + ".json";
}

}  // namespace vdpa
