// Everything the handler touches is static and atomic: it may run on any thread at
// any instruction.
#include "deviceplugin/datapath/dpdk/memory_guard.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "common/errors.h"
#include "common/mutex.h"
#include "common/serving_page.h"

namespace vdpa::dpdk {
namespace {

struct Region {
  std::atomic<uint64_t> start{0}, end{0};  // end 0: unused
  std::atomic<int> vid{-1};
  std::atomic<bool> failed{false};
};

constexpr size_t kMaxRegions = 8192;  // rte_vhost has at most 1,024 connections of 8 regions each
Region regions[kMaxRegions];
std::atomic<int> alarm{-1};
Mutex adding;

bool putEmpty(uint64_t address, uint64_t size) {
  return ::mmap(reinterpret_cast<void*>(address), size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

// Replaces the whole region at once: a fault per page would delay the other ports, and each page
// would take two more mappings.
bool replaceRegion(uint64_t address) {
  for (Region& region : regions) {
    // Only a complete region: one that is being added gets its end last, one being removed loses it
    // first.
    const uint64_t end = region.end.load(), start = region.start.load();
    if (start == 0 || address < start || address >= end || region.end.load() != end) continue;
    if (!putEmpty(start, end - start)) return false;
    region.failed.store(true);
    return true;
  }
  return false;
}

// Replaces a page that rte_vhost reads before it reports the memory: a ring's first bytes. The page
// may be a huge one, which can only be replaced as a whole.
bool replacePage(uint64_t address) {
  for (const uint64_t size : {uint64_t{4096}, uint64_t{2} << 20, uint64_t{1} << 30}) {
    if (putEmpty(address & ~(size - 1), size)) return true;
    if (errno != EINVAL) return false;
  }
  return false;
}

void onBusError(int signal, siginfo_t* info, void*) {
  const int before = errno;
  const auto address = reinterpret_cast<uint64_t>(info->si_addr);
  // Only "no such memory behind this mapping": a hardware error is not ours to hide.
  if (info->si_code != BUS_ADRERR || (!replaceRegion(address) && !replacePage(address))) {
    noteCrash(signal);
    ::signal(signal, SIG_DFL);
    ::raise(signal);  // which takes effect when this returns
    return;
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(alarm.load(), &one, sizeof one);
  errno = before;
}

}  // namespace

MemoryGuard::MemoryGuard() {
  alarm = checked(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "cannot create an eventfd");
  struct sigaction action {};
  action.sa_sigaction = onBusError;
  action.sa_flags = SA_SIGINFO;
  checked(::sigaction(SIGBUS, &action, nullptr), "cannot handle SIGBUS");
}

MemoryGuard::~MemoryGuard() {
  ::signal(SIGBUS, SIG_DFL);
  for (Region& region : regions) region.end = 0;
  ::close(alarm.exchange(-1));
}

void MemoryGuard::add(int vid, uint64_t address, uint64_t size) {
  Lock lock(adding);
  for (Region& region : regions) {
    if (region.end.load() != 0) continue;
    region.vid = vid;
    region.failed = false;
    region.start = address;
    region.end = address + size;
    return;
  }
  std::abort();  // more than all ports with the most regions in vhost-user
}

void MemoryGuard::remove(int vid) {
  Lock lock(adding);
  for (Region& region : regions) {
    if (region.end.load() == 0 || region.vid.load() != vid) continue;
    region.end = 0;
    region.start = 0;
    region.vid = -1;
  }
}

int MemoryGuard::fd() const {
  return alarm.load();
}

std::vector<int> MemoryGuard::takeFailed() {
  eventfd_t ignored;
  ::eventfd_read(alarm.load(), &ignored);
  std::vector<int> failed;
  for (Region& region : regions)
    if (region.failed.exchange(false) && region.end.load() != 0)
      failed.push_back(region.vid.load());
  return failed;
}

}  // namespace vdpa::dpdk
