// See the header.
#include "deviceplugin/datapath/worker/huge_pages.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <map>
#include <utility>

#include "deviceplugin/datapath/worker/protocol_error.h"

namespace vdpa {
namespace {

constexpr uint64_t kBlock = 512;  // bytes, the unit of st_blocks (stat(3type))

// The parts of one file that regions name, from whole page to whole page, in the order of the
// table.
struct HugeFile {
  size_t region = 0;                                 // the first of them, for the message
  uint64_t allocated = 0;                            // bytes
  std::vector<std::pair<uint64_t, uint64_t>> parts;  // start and end
};

// A virtual machine's regions can share a page, or be the same memory at two addresses.
uint64_t bytesOf(std::vector<std::pair<uint64_t, uint64_t>> parts) {
  std::sort(parts.begin(), parts.end());
  uint64_t bytes = 0, end = 0;
  for (const auto& [first, last] : parts) {
    if (last <= end) continue;
    bytes += last - std::max(first, end);
    end = last;
  }
  return bytes;
}

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
    const uint64_t start = regions[i].wire.fileOffset, end = start + regions[i].wire.size;
    HugeFile& file = files[{status.st_dev, status.st_ino}];
    if (file.parts.empty()) {
      file.region = i;
      file.allocated = static_cast<uint64_t>(status.st_blocks) * kBlock;
    }
    file.parts.emplace_back(start - start % page, (end + page - 1) / page * page);
  }
  for (const auto& [identity, file] : files)
    if (const uint64_t needed = bytesOf(file.parts); file.allocated < needed)
      throw protocolError(
          "memory region {}: {} of the {} MiB of huge pages it needs are there; the VM's memory is "
          "not allocated: prealloc=on (QEMU) or prefault=on (Cloud Hypervisor) allocates it",
          file.region, file.allocated >> 20, needed >> 20);
}

}  // namespace vdpa
