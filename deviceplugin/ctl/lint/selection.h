// A pod's choice of networks: the annotation k8s.v1.cni.cncf.io/networks, in its short form and in
// JSON.
//
// Source: the Network Plumbing Working Group's "Kubernetes Network Custom Resource Definition
// De-facto Standard" 1.3, section 4; parsePodNetworkAnnotation() of Multus 4.2.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace vdpa::ctl {

struct Selection {
  std::string space;      // namespace; empty: the pod's
  std::string name;       // of the network
  std::string interface;  // in the pod; empty: Multus chooses
  std::string mac;        // empty: none requested
  size_t ips = 0;         // number of requested addresses
};

// Throws std::invalid_argument with the problem.
std::vector<Selection> parseSelections(const std::string& annotation);

}  // namespace vdpa::ctl
