#include "common/cni_calls.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "common/errors.h"
#include "common/unique_fd.h"

namespace vdpa {
namespace {

// The file's format: one page of these. A slot is taken by its first call and never changes its
// key.
struct Slot {
  uint64_t key;  // 0: free; else the command's place in kCommands, plus 1, and the code in the
                 // lower half
  uint64_t count;
};
using Table = std::array<Slot, 256>;

constexpr std::string_view kCommands[] = {"ADD", "DEL", "CHECK", "GC", "STATUS"};

uint64_t keyOf(std::string_view command, unsigned code) {
  const auto* found = std::ranges::find(kCommands, command);
  if (found == std::end(kCommands)) return 0;
  return static_cast<uint64_t>(found - kCommands + 1) << 32 | code;
}

void count(Table& table, uint64_t key) {
  for (Slot& slot : table) {
    uint64_t taken = 0;
    if (std::atomic_ref(slot.key).compare_exchange_strong(taken, key) || taken == key) {
      std::atomic_ref(slot.count).fetch_add(1);
      return;
    }
  }
}

}  // namespace

void countCniCall(const std::string& file, std::string_view command, unsigned code) noexcept {
  const uint64_t key = keyOf(command, code);
  if (key == 0) return;
  const UniqueFd fd(
      ::open(file.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  if (!fd) return;
  struct stat found {};
  if (::fstat(fd.get(), &found) < 0 || !S_ISREG(found.st_mode)) return;
  // Writing to a page that a full disk can't provide would end this process.
  if (::posix_fallocate(fd.get(), 0, sizeof(Table)) != 0) return;
  void* address = ::mmap(nullptr, sizeof(Table), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return;
  count(*static_cast<Table*>(address), key);
  ::munmap(address, sizeof(Table));
}

std::vector<CniCallCount> readCniCalls(const std::string& file) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd && errno == ENOENT) return {};
  checked(fd.get(), "cannot open {}", file);
  Table table{};
  checked(static_cast<int>(::pread(fd.get(), table.data(), sizeof table, 0)), "cannot read {}",
          file);
  std::vector<CniCallCount> counts;
  for (const Slot& slot : table) {
    const size_t command = slot.key >> 32;
    if (command == 0 || command > std::size(kCommands)) continue;  // of a later release
    counts.push_back(
        {std::string(kCommands[command - 1]), static_cast<unsigned>(slot.key), slot.count});
  }
  return counts;
}

}  // namespace vdpa
