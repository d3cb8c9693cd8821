// The network configuration on standard input: known keys are checked, unknown ones ignored.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cni/environment.h"
#include "cni/json_object.h"
#include "common/json.h"

namespace vdpa::cni {

// A version of the specification, comparable.
struct Version {
  int major = 0, minor = 0, patch = 0;
  auto operator<=>(const Version&) const = default;
};

extern const std::vector<std::string> kSupportedVersions;

// The keys that every command needs.
struct NetworkConfig {
  std::string text;  // verbatim, for an IPAM plugin
  nlohmann::json json;
  std::string cniVersion;
  Version version;
  std::string name;
  std::string ipamType;  // empty: no IPAM
  std::string datapathSocket = "/run/vdpa/datapath.sock";
  std::string logLevel = "info";  // as initLogging() has it
  std::string logFile;
  std::optional<nlohmann::json> prevResult;
  std::vector<std::pair<std::string, std::string>>
      validAttachments;  // container, interface; for GC
  std::string ignored;   // for DEL: the first error in keys that it can do without
};

// Every key that a configuration may have: the settings, and those that this program reads or that
// the runtime adds.
const std::vector<std::string_view>& networkKeys();

// The configuration's keys. Reading one that networkKeys() lacks throws std::logic_error.
JsonObject networkObject(const nlohmann::json& config);

// Throws Error: decodingFailure if the text isn't JSON, incompatibleVersion, or invalidConfig with
// the key. DEL ignores errors in keys that it can do without: refusing would block the pod's
// termination, and ADD has reported them.
NetworkConfig parseNetworkConfig(const std::string& text, const Environment& environment);

// The cniVersion to answer with if the configuration itself is wrong.
std::string answerVersion(const std::string& text);

}  // namespace vdpa::cni
