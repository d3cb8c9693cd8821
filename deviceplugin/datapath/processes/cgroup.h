// A container runtime kills whatever is in its container's cgroups when the container ends. Workers
// and switches carry pods' packets and outlive us, so they are moved out.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace vdpa::datapath {

// Moves the process and its threads into the cgroup "vdpa" at the top of every hierarchy below
// `root`, where the host's cgroup file systems are (v2, v1, or both), and makes that cgroup where
// it is missing. What the process starts from then on is there too. Throws std::system_error.
void moveToOwnCgroup(const std::string& root, pid_t pid);

// Limits the memory of those cgroups together, in bytes; 0: no limit. The kernel charges a page of
// shared memory to whoever touches it first, and pods let our processes do that. Throws
// std::system_error.
void limitOwnCgroup(const std::string& root, uint64_t memory);

// The memory of those cgroups together.
struct OwnMemory {
  uint64_t used = 0;   // bytes
  uint64_t limit = 0;  // bytes; UINT64_MAX or another great number: none
  uint64_t kills = 0;  // processes that the kernel ended for lack of memory, so far
};
// Absent if the kernel doesn't report it, or `root` is empty.
std::optional<OwnMemory> ownMemory(const std::string& root) noexcept;
// Only its kills, which is cheaper; 0 if the kernel doesn't report them.
uint64_t ownMemoryKills(const std::string& root) noexcept;

// Lets what is in those cgroups reserve no huge page of any size. A mapping of a hugetlb file
// reserves the pages that the file lacks, charged to whoever maps it: a pod's untouched file would
// have a switch take the node's free pages. Mapping pages that the pod has allocated or reserved
// takes none. None of our processes has huge pages of its own (start_eal.h); one that needs them
// belongs in another cgroup. Returns the failures: EBUSY is the kernel's answer while such pages
// are charged to the cgroup. Throws std::system_error where the kernel has no such limit.
std::vector<std::system_error> reserveNoHugePages(const std::string& root);

// Removes those cgroups, which must be empty. Returns what stays, with the reason, for people.
std::vector<std::string> removeOwnCgroup(const std::string& root);

}  // namespace vdpa::datapath
