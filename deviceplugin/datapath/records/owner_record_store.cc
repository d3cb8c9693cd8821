#include "deviceplugin/datapath/records/owner_record_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <exception>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "common/atomic_file.h"
#include "common/errors.h"
#include "common/json.h"
#include "common/log.h"
#include "common/paths.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {
namespace {

constexpr std::string_view kSuffix = ".json";
constexpr std::string_view kBadSuffix = ".json.bad";

}  // namespace

OwnerRecordStore::OwnerRecordStore(std::string directory) : directory_(std::move(directory)) {
  makeDirectory(directory_, 0700);
}

OwnerRecordStore::Loaded OwnerRecordStore::load() {
  std::set<std::string> devices;
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    const std::string name = entry.path().filename();
    if (name.ends_with(".tmp"))
      std::filesystem::remove_all(entry.path());
    else if (name.ends_with(kSuffix))
      devices.insert(name.substr(0, name.size() - kSuffix.size()));
    else if (name.ends_with(kBadSuffix))
      devices.insert(name.substr(0, name.size() - kBadSuffix.size()));
  }

  Loaded loaded;
  for (const auto& id : devices) {
    const std::string file = path(id), aside = badPath(id);
    const bool setAside = std::filesystem::exists(aside);
    const bool fresh = std::filesystem::exists(file);
    try {
      auto record = ownerRecordFromJson(parseJson(readFile(fresh ? file : aside)));
      if (record.attachment.deviceId != id)
        throw std::runtime_error("it is about device " + record.attachment.deviceId);
      if (!fresh) {
        std::filesystem::rename(aside, file);
        log::info("the owner record {} can be read now and is used again", aside);
      } else if (setAside) {
        log::warn("removing {}: {} has a newer record", aside, id);
        std::filesystem::remove_all(aside);
      }
      loaded.records.push_back(std::move(record));
    } catch (const std::filesystem::filesystem_error&) {
      throw;  // then no record can be set aside either
    } catch (const std::exception& error) {
      if (fresh) {
        std::filesystem::remove_all(aside);  // of an even earlier owner
        std::filesystem::rename(file, aside);
      }
      loaded.unreadable[id] = fmt::format("{} cannot be used: {}", aside, error.what());
    }
  }
  return loaded;
}

void OwnerRecordStore::write(const OwnerRecord& record, Durability durability) {
  writeFileAtomically(path(record.attachment.deviceId), jsonText(toJson(record), 2) + "\n",
                      durability, 0600);
}

void OwnerRecordStore::remove(const std::string& deviceId) {
  const std::string file = path(deviceId);
  // On a read-only file system unlink() reports that first, even if the file does not exist.
  if (::unlink(file.c_str()) < 0 && errno != ENOENT && ::access(file.c_str(), F_OK) == 0)
    checked(::unlink(file.c_str()), "cannot remove {}", file);
}

void OwnerRecordStore::removeUnreadable(const std::string& deviceId) {
  std::filesystem::remove_all(badPath(deviceId));
}

std::string OwnerRecordStore::path(const std::string& deviceId) const {
  return fmt::format("{}/{}{}", directory_, deviceId, kSuffix);
}

std::string OwnerRecordStore::badPath(const std::string& deviceId) const {
  return fmt::format("{}/{}{}", directory_, deviceId, kBadSuffix);
}

}  // namespace vdpa::datapath
