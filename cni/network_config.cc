// The part of the configuration that every command needs.
#include "cni/network_config.h"

#include <fmt/format.h>

#include <algorithm>

#include "cni/error.h"
#include "cni/json_keys.h"

namespace vdpa::cni {

using nlohmann::json;

const std::vector<std::string> kSupportedVersions{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

namespace {

Version parseVersion(const std::string& text) {
  Version version;
  int length = 0;
  const int fields = std::sscanf(text.c_str(), "%d.%d.%d%n", &version.major, &version.minor,
                                 &version.patch, &length);
  if (fields != 3 || static_cast<size_t>(length) != text.size()) return {};
  return version;
}

bool isNetworkName(const std::string& name) {
  const auto good = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
  };
  return !name.empty() && std::isalnum(static_cast<unsigned char>(name.front())) &&
         std::all_of(name.begin(), name.end(), good);
}

void requireVersion(const NetworkConfig& config, Command command) {
  const Version since = command == Command::check                              ? Version{0, 4, 0}
                        : command == Command::gc || command == Command::status ? Version{1, 1, 0}
                                                                               : Version{0, 3, 0};
  if (config.version < since)
    throw Error(Code::incompatibleVersion,
                fmt::format("{} needs cniVersion {}.{}.{} or newer; the configuration says {}",
                            commandName(command), since.major, since.minor, since.patch,
                            config.cniVersion));
}

std::vector<std::pair<std::string, std::string>> parseAttachments(const json& array) {
  std::vector<std::pair<std::string, std::string>> attachments;
  for (const auto& entry : array) {
    if (!entry.is_object())
      throw Error(Code::invalidConfig, "cni.dev/valid-attachments: expected a list of objects");
    attachments.emplace_back(stringAt(entry, "containerID"), stringAt(entry, "ifname"));
  }
  return attachments;
}

}  // namespace

NetworkConfig parseNetworkConfig(const std::string& text, Command command) {
  NetworkConfig config;
  config.text = text;
  try {
    config.json = json::parse(text);
  } catch (const json::parse_error& error) {
    throw Error(Code::decodingFailure, "the network configuration is not JSON", error.what());
  }
  if (!config.json.is_object())
    throw Error(Code::decodingFailure, "the network configuration is not a JSON object");

  const json& object = config.json;
  config.cniVersion = stringAt(object, "cniVersion", "0.1.0");
  if (std::find(kSupportedVersions.begin(), kSupportedVersions.end(), config.cniVersion) ==
      kSupportedVersions.end())
    throw Error(
        Code::incompatibleVersion,
        fmt::format("cniVersion {} is not supported{}; supported are {}", config.cniVersion,
                    object.contains("cniVersion") ? "" : " (a missing cniVersion means 0.1.0)",
                    fmt::join(kSupportedVersions, ", ")));
  config.version = parseVersion(config.cniVersion);
  requireVersion(config, command);

  config.name = stringAt(object, "name");
  if (!isNetworkName(config.name) && command != Command::status)
    throw Error(
        Code::invalidConfig,
        fmt::format("name '{}': expected a letter or digit, then letters, digits, '_', '.' or '-'",
                    config.name));
  config.datapathSocket = stringAt(object, "datapathSocket", config.datapathSocket);
  config.logLevel = stringAt(object, "logLevel", config.logLevel);
  config.logFile = stringAt(object, "logFile");
  const json ipam = objectAt(object, "ipam");
  if (!ipam.empty()) {
    config.ipamType = stringAt(ipam, "type");
    if (config.ipamType.empty() || config.ipamType.find('/') != std::string::npos)
      throw Error(
          Code::invalidConfig,
          fmt::format("ipam.type '{}': expected the name of an IPAM plugin", config.ipamType));
  }
  config.deviceInfoFile = stringAt(objectAt(object, "runtimeConfig"), "CNIDeviceInfoFile");
  if (!config.deviceInfoFile.empty() && config.deviceInfoFile.front() != '/')
    throw Error(Code::invalidConfig,
                fmt::format("runtimeConfig.CNIDeviceInfoFile '{}': expected an absolute path",
                            config.deviceInfoFile));
  if (object.contains("prevResult") && !object["prevResult"].is_null())
    config.prevResult = objectAt(object, "prevResult");
  // A list that is missing isn't an empty one: taken for it, GC would detach every running pod.
  // libcni writes null for none.
  if (command == Command::gc && !object.contains("cni.dev/valid-attachments"))
    throw Error(Code::invalidConfig, "GC needs cni.dev/valid-attachments in the configuration");
  if (command == Command::gc)
    config.validAttachments = parseAttachments(arrayAt(object, "cni.dev/valid-attachments"));
  return config;
}

std::string answerVersion(const std::string& text) {
  const json object = json::parse(text, nullptr, false);
  if (object.is_object() && object.contains("cniVersion") && object["cniVersion"].is_string()) {
    const auto version = object["cniVersion"].get<std::string>();
    if (std::find(kSupportedVersions.begin(), kSupportedVersions.end(), version) !=
        kSupportedVersions.end())
      return version;
  }
  return kSupportedVersions.back();
}

}  // namespace vdpa::cni
