// The owner records of this node on disk.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/atomic_file.h"
#include "deviceplugin/datapath/records/owner_record.h"

namespace vdpa::datapath {

class OwnerRecordStore {
 public:
  // Makes the directory (0700) if it is missing.
  explicit OwnerRecordStore(std::string directory);

  struct Loaded {
    std::vector<OwnerRecord> records;
    std::map<std::string, std::string> unreadable;  // device ID -> what is wrong, and in which file
  };

  // Every record. One that cannot be read is set aside as <device>.json.bad and never guessed at;
  // one set aside by a program that could not read it, and which this one can, is taken up again.
  // What a crash left half-written is removed. Throws when the directory can't be read or changed.
  Loaded load();
  // Durability::whole for the record that comes before effects: a power cut that takes the record
  // takes the effects as well. A change of phase need only survive this process, since a record of
  // another boot is undone whatever its phase, and one that can't be read withholds nothing then.
  void write(const OwnerRecord& record, Durability durability);
  void remove(const std::string& deviceId);
  // The one that was set aside.
  void removeUnreadable(const std::string& deviceId);

 private:
  std::string path(const std::string& deviceId) const;
  std::string badPath(const std::string& deviceId) const;

  std::string directory_;
};

}  // namespace vdpa::datapath
