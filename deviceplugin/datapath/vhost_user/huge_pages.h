// Checks that the huge pages behind a pod's memory exist. For those that the pod has not allocated,
// an engine that maps the hugetlb file would take the node's free ones: they belong to the pods
// that requested them from the kubelet, and the engine's cgroup may reserve none.
#pragma once

#include <vector>

#include "deviceplugin/datapath/vhost_user/memory_table.h"

namespace vdpa::vhost_user {

// Throws ProtocolError when a hugetlb file has fewer pages than there are up to the end of its last
// region, which rte_vhost maps from the file's start (vhost_user_mmap_region() in DPDK's
// lib/vhost/vhost_user.c). The kernel counts a file's pages in st_blocks
// (hugetlb_add_to_page_cache() in Linux's mm/hugetlb.c) and doesn't say which parts of the file
// they are for: a file with as many pages behind its regions passes, and its mapping then fails in
// the engine.
void checkHugePages(const std::vector<MemoryRegion>& regions);

}  // namespace vdpa::vhost_user
