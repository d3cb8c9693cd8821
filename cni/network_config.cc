// The part of the configuration that every command needs.
#include "cni/network_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cni/environment.h"
#include "cni/error.h"
#include "cni/json_object.h"
#include "cni/network_paths.h"
#include "common/attachment_limits.h"
#include "common/port_settings.h"

namespace vdpa::cni {

using nlohmann::json;

const std::vector<std::string> kSupportedVersions{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

namespace {

Version parseVersion(const std::string& text) {
  Version version;
  int length = 0;
  const int fields = std::sscanf(text.c_str(), "%9d.%9d.%9d%n", &version.major, &version.minor,
                                 &version.patch, &length);
  if (fields != 3 || static_cast<size_t>(length) != text.size()) return {};
  return version;
}

bool isNetworkName(const std::string& name) {
  const auto good = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
  };
  return !name.empty() && name.size() <= kMaxNetworkName &&
         std::isalnum(static_cast<unsigned char>(name.front())) &&
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

std::vector<std::pair<std::string, std::string>> parseAttachments(const JsonObject& object) {
  constexpr const char* kKey = "cni.dev/valid-attachments";
  // A missing list must not count as empty: GC would detach every running pod. libcni writes null
  // for an empty one.
  if (!object.json().contains(kKey))
    throw Error(Code::invalidConfig, fmt::format("GC needs {} in the configuration", kKey));
  std::vector<std::pair<std::string, std::string>> attachments;
  for (const auto& entry : object.objects(kKey)) {
    for (const char* key : {"containerID", "ifname"})
      if (entry.string(key).empty())
        throw Error(Code::invalidConfig, fmt::format("{} is missing", entry.path(key)));
    attachments.emplace_back(entry.string("containerID"), entry.string("ifname"));
  }
  return attachments;
}

// sriov-cni's log levels as ours.
std::string parseLogLevel(const std::string& text) {
  static constexpr std::pair<const char*, const char*> kLevels[] = {
      {"panic", "critical"}, {"fatal", "critical"}, {"error", "error"}, {"warning", "warning"},
      {"warn", "warning"},   {"info", "info"},      {"debug", "debug"}, {"trace", "trace"},
  };
  std::string word = text;
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const auto& [name, level] : kLevels)
    if (word == name) return level;
  throw Error(
      Code::invalidConfig,
      fmt::format("logLevel '{}': expected panic, fatal, error, warning, info, debug or trace",
                  excerpt(text, 40)));
}

std::string parseIpamType(const JsonObject& object) {
  const JsonObject ipam = object.object("ipam");
  if (ipam.json().empty()) return "";
  const std::string type = ipam.string("type");
  if (type.empty() || type == "." || type == ".." || type.find('/') != std::string::npos)
    throw Error(
        Code::invalidConfig,
        fmt::format("ipam.type '{}': expected the name of an IPAM plugin", excerpt(type, 40)));
  // It would call itself without end.
  if (type == object.string("type"))
    throw Error(Code::invalidConfig,
                fmt::format("ipam.type '{}' is this plugin; expected an IPAM plugin", type));
  return type;
}

void parseKeys(NetworkConfig& config, const Environment& environment) {
  const Command command = environment.command;
  const JsonObject object = networkObject(config.json);
  // DEL needs its daemon and its IPAM plugin even if other keys are wrong.
  const auto attempt = [&](const auto& step) {
    try {
      step();
    } catch (const Error& error) {
      if (command != Command::del) throw;
      if (config.ignored.empty()) config.ignored = error.what();
    }
  };
  attempt([&] {
    config.datapathSocket = confineSocket(object.string("datapathSocket", config.datapathSocket),
                                          environment.socketRoots);
  });
  attempt([&] { config.ipamType = parseIpamType(object); });
  attempt([&] {
    config.name = object.string("name");
    if (!isNetworkName(config.name) && command != Command::status)
      throw Error(Code::invalidConfig,
                  fmt::format("name '{}': expected a letter or digit, then letters, digits, '_', "
                              "'.' or '-', at most {} bytes",
                              excerpt(config.name, 40), kMaxNetworkName));
    // Read elsewhere, but an error in them is reported here.
    object.string("type");
    object.object("dns");
    object.object("capabilities");
    object.object("runtimeConfig").list("ips");
    config.logFile = confineLog(object.string("logFile"));
    config.logLevel = parseLogLevel(object.string("logLevel", config.logLevel));
    if (object.has("prevResult")) config.prevResult = object.object("prevResult").json();
    if (command == Command::gc) config.validAttachments = parseAttachments(object);
  });
}

}  // namespace

const std::vector<std::string_view>& networkKeys() {
  static const auto keys = [] {
    std::vector<std::string_view> all{
        "cniVersion",   "name",    "type",          "ipam",       "dns",
        "capabilities", "args",    "deviceID",      "pciBusID",   "datapathSocket",
        "logLevel",     "logFile", "runtimeConfig", "prevResult", "cni.dev/valid-attachments"};
    const PortSettings settings;
    forEachSetting([&](const Setting& setting, const auto&) { all.push_back(setting.key); },
                   settings);
    return all;
  }();
  return keys;
}

JsonObject networkObject(const nlohmann::json& config) {
  return JsonObject(config, networkKeys());
}

NetworkConfig parseNetworkConfig(const std::string& text, const Environment& environment) {
  NetworkConfig config;
  config.text = text;
  config.json = parseObject(text, "the network configuration");

  config.cniVersion = networkObject(config.json).string("cniVersion", "0.1.0");
  if (std::find(kSupportedVersions.begin(), kSupportedVersions.end(), config.cniVersion) ==
      kSupportedVersions.end())
    throw Error(
        Code::incompatibleVersion,
        fmt::format("cniVersion {} is not supported{}; supported are {}",
                    excerpt(config.cniVersion, 40),
                    config.json.contains("cniVersion") ? "" : " (a missing cniVersion means 0.1.0)",
                    fmt::join(kSupportedVersions, ", ")));
  config.version = parseVersion(config.cniVersion);
  requireVersion(config, environment.command);
  parseKeys(config, environment);
  return config;
}

std::string answerVersion(const std::string& text) {
  try {
    const json object = parseObject(text, "the network configuration");
    const std::string version = JsonObject(object).string("cniVersion");
    if (std::find(kSupportedVersions.begin(), kSupportedVersions.end(), version) !=
        kSupportedVersions.end())
      return version;
  } catch (const Error&) {
    // parseNetworkConfig() reports the error.
  }
  return kSupportedVersions.back();
}

}  // namespace vdpa::cni
