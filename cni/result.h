// The result of ADD, in the version the configuration asks for.
#pragma once

#include <nlohmann/json.hpp>

#include "cni/environment.h"
#include "cni/network_config.h"
#include "datapath.pb.h"

namespace vdpa::cni {

// prevResult (if any), then our interface, then the addresses, routes and DNS of `ipam` (null
// without IPAM).
nlohmann::json makeResult(const NetworkConfig& network, const Environment& environment,
                          const datapath::v1::Attachment& attachment, const nlohmann::json& ipam);

// The addresses of an IPAM answer, with prefix length. Throws Error when there is none or one is
// malformed.
std::vector<std::string> addressesOf(const nlohmann::json& ipam, const std::string& type);

}  // namespace vdpa::cni
