#include "deviceplugin/datapath/vhost_user/huge_pages.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"

namespace vdpa::vhost_user {
namespace {

constexpr uint64_t kBlock = 512;  // bytes, the unit of st_blocks (stat(3type))

struct HugeFile {
  size_t region = 0;       // the first in the table, for the message
  uint64_t allocated = 0;  // bytes
  uint64_t mapped = 0;     // the same: rte_vhost maps each region from the file's start
};

}  // namespace

void checkHugePages(const std::vector<MemoryRegion>& regions) {
  std::map<std::pair<dev_t, ino_t>, HugeFile> files;
  for (size_t i = 0; i < regions.size(); ++i) {
    const int fd = regions[i].file->get();
    struct statfs system {};
    struct stat status {};
    if (::fstatfs(fd, &system) < 0 || system.f_type != HUGETLBFS_MAGIC || ::fstat(fd, &status) < 0)
      continue;
    const auto page = static_cast<uint64_t>(system.f_bsize);
    const uint64_t end = regions[i].wire.fileOffset + regions[i].wire.size;
    HugeFile& file = files[{status.st_dev, status.st_ino}];
    if (file.mapped == 0) {
      file.region = i;
      file.allocated = static_cast<uint64_t>(status.st_blocks) * kBlock;
    }
    file.mapped = std::max(file.mapped, (end + page - 1) / page * page);
  }
  for (const auto& [identity, file] : files)
    if (file.allocated < file.mapped)
      throw protocolError(
          "memory region {}: {} of the {} MiB of huge pages it needs exist; the VM's memory is "
          "not allocated: prealloc=on (QEMU) or prefault=on (Cloud Hypervisor) allocates it",
          file.region, file.allocated >> 20, file.mapped >> 20);
}

}  // namespace vdpa::vhost_user
