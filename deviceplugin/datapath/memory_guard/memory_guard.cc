// Everything the handler touches is static and atomic: it may run on any thread at
// any instruction.
#include "deviceplugin/datapath/memory_guard/memory_guard.h"

#include <fmt/core.h>
#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "common/errors.h"
#include "common/mutex.h"
#include "common/serving_page.h"

namespace vdpa {
namespace {

struct Region {
  std::atomic<uint64_t> start{0}, end{0};  // end 0: unused
  std::atomic<int> owner{MemoryGuard::kNobody};
  std::atomic<uint64_t> page{0};
  std::atomic<unsigned> failures{0};
};

Region regions[MemoryGuard::kMaxRegions];
std::atomic<size_t> highest{0};  // those from here on were never used
std::atomic<MemoryGuard::Report> reporter{nullptr};
std::atomic<void*> context{nullptr};
std::atomic<bool> replacesPages{false};
std::atomic<bool> hardwareError{false};

bool putEmpty(uint64_t address, uint64_t size) {
  return ::mmap(reinterpret_cast<void*>(address), size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

void report(int owner) {
  if (const auto tell = reporter.load()) tell(context.load(), owner);
}

// A page is replaced at once; a whole region takes long if it has many pages that are present. But
// a fault for each page of many would delay the other ports, and each takes two more mappings.
constexpr unsigned kSinglePages = 16;

bool replaceInRegion(uint64_t address) {
  const size_t count = highest.load();
  for (size_t i = 0; i < count; ++i) {
    // Only a complete region: one that is being added gets its end last, one being removed loses it
    // first.
    Region& region = regions[i];
    const uint64_t end = region.end.load(), start = region.start.load();
    if (start == 0 || address < start || address >= end || region.end.load() != end) continue;
    const unsigned before = region.failures.fetch_add(1);
    const uint64_t page = region.page.load();
    const bool single = before < kSinglePages && putEmpty(address & ~(page - 1), page);
    if (!single && !putEmpty(start, end - start)) return false;
    if (before == 0) report(region.owner.load());
    return true;
  }
  return false;
}

// The page may be a huge one, which can only be replaced as a whole.
bool replacePage(uint64_t address) {
  if (!replacesPages.load()) return false;
  for (const uint64_t size : {uint64_t{4096}, uint64_t{2} << 20, uint64_t{1} << 30}) {
    if (putEmpty(address & ~(size - 1), size)) {
      report(MemoryGuard::kNobody);
      return true;
    }
    if (errno != EINVAL) return false;
  }
  return false;
}

void onBusError(int signal, siginfo_t* info, void*) {
  const int before = errno;
  const auto address = reinterpret_cast<uint64_t>(info->si_addr);
  // "No such memory behind this mapping", or a hardware error that was met in a pod's memory, which
  // costs the pod its data: any other is not ours to hide.
  const bool missing = info->si_code == BUS_ADRERR, broken = info->si_code == BUS_MCEERR_AR;
  if (broken) hardwareError = true;
  if (!((missing || broken) && replaceInRegion(address)) && !(missing && replacePage(address))) {
    noteCrash(signal);
    ::signal(signal, SIG_DFL);
    ::raise(signal);  // which takes effect when this returns
    return;
  }
  errno = before;
}

}  // namespace

MemoryGuard::MemoryGuard(Unknown unknown, Report tell, void* of) {
  replacesPages = unknown == Unknown::kReplacePage;
  hardwareError = false;
  context = of;
  reporter = tell;
  struct sigaction action {};
  action.sa_sigaction = onBusError;
  action.sa_flags = SA_SIGINFO;
  checked(::sigaction(SIGBUS, &action, nullptr), "cannot handle SIGBUS");
}

MemoryGuard::~MemoryGuard() {
  ::signal(SIGBUS, SIG_DFL);
  reporter = nullptr;
  for (size_t i = 0; i < highest.load(); ++i) regions[i].end = 0;
  highest = 0;
}

size_t MemoryGuard::add(int owner, uint64_t address, uint64_t size, uint64_t page) {
  Lock lock(mutex_);
  size_t index = highest.load();
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else if (index == kMaxRegions) {
    throw std::runtime_error(
        fmt::format("all pods share more than {} regions of memory", kMaxRegions));
  }
  Region& region = regions[index];
  region.owner = owner;
  region.page = page;
  region.failures = 0;
  region.start = address;
  region.end = address + size;
  if (index == highest.load()) highest = index + 1;
  return index;
}

void MemoryGuard::remove(size_t index) {
  Region& region = regions[index];
  region.end = 0;
  region.start = 0;
  region.owner = kNobody;
  Lock lock(mutex_);
  free_.push_back(index);
}

bool MemoryGuard::takeHardwareError() {
  return hardwareError.exchange(false);
}

}  // namespace vdpa
