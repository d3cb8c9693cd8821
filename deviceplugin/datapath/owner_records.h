// The owner records of this node on disk.
#pragma once

#include <string>
#include <vector>

#include "common/atomic_file.h"
#include "deviceplugin/datapath/owner_record.h"

namespace vdpa {

class OwnerRecords {
 public:
  // Makes the directory (0700) if it is missing.
  explicit OwnerRecords(std::string directory);

  // Every readable record. One that cannot be read is set aside as *.bad with a warning; what a
  // crash left half-written is removed.
  std::vector<OwnerRecord> load();
  // Durability::disk for the record that comes before effects; a change of phase need only survive
  // this process, since a record of another boot is undone whatever its phase.
  void write(const OwnerRecord& record, Durability durability);
  void remove(const std::string& deviceId);

 private:
  std::string path(const std::string& deviceId) const;

  std::string directory_;
};

}  // namespace vdpa
