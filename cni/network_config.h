// The network configuration on standard input: known keys are checked, unknown ones pass.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cni/environment.h"
#include "common/json.h"

namespace vdpa::cni {

// As a version of the specification, comparable.
struct Version {
  int major = 0, minor = 0, patch = 0;
  auto operator<=>(const Version&) const = default;
};

extern const std::vector<std::string> kSupportedVersions;

// What every command needs.
struct NetworkConfig {
  std::string text;  // as it came: an IPAM plugin gets it verbatim
  nlohmann::json json;
  std::string cniVersion;
  Version version;
  std::string name;
  std::string ipamType;  // empty: no IPAM
  std::string datapathSocket = "/run/vdpa/datapath.sock";
  std::string logLevel = "info";  // one of spdlog's
  std::string logFile;
  std::optional<nlohmann::json> prevResult;
  std::vector<std::pair<std::string, std::string>>
      validAttachments;  // container, interface; for GC
  std::string ignored;   // for DEL: the first error of keys that it can do without
};

// Throws Error: decodingFailure for what isn't JSON, incompatibleVersion, invalidConfig naming the
// key. DEL is refused for nothing that it can do without: it would keep the pod from ending, and
// ADD has told.
NetworkConfig parseNetworkConfig(const std::string& text, const Environment& environment);

// The cniVersion to answer with when the configuration itself is the problem.
std::string answerVersion(const std::string& text);

}  // namespace vdpa::cni
