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
  // Creates the directory (0700) if it is missing.
  explicit OwnerRecordStore(std::string directory);

  struct Loaded {
    std::vector<OwnerRecord> records;
    std::map<std::string, std::string> unreadable;  // device ID -> what is wrong, and in which file
  };

  // Returns every record. An unreadable record is set aside as <device>.json.bad and never guessed
  // at; one that another program set aside and this one can read is used again. Half-written files
  // of a crash are removed. Throws if the directory can't be read or changed.
  Loaded load();
  // Durability::whole for a new record, whose changes follow: a power cut that loses the record
  // undoes the changes as well. A change of phase need only survive this process, since a record of
  // another boot is undone whatever its phase, and an unreadable one then withholds nothing.
  void write(const OwnerRecord& record, Durability durability);
  void remove(const std::string& deviceId);
  // Removes the record that was set aside.
  void removeUnreadable(const std::string& deviceId);

 private:
  std::string path(const std::string& deviceId) const;
  std::string badPath(const std::string& deviceId) const;

  std::string directory_;
};

}  // namespace vdpa::datapath
