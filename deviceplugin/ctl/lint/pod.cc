#include "deviceplugin/ctl/lint/pod.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "cni/error.h"
#include "common/attachment_limits.h"
#include "common/json.h"
#include "deviceplugin/ctl/lint/manifest.h"
#include "deviceplugin/ctl/lint/network.h"
#include "deviceplugin/ctl/lint/problem.h"
#include "deviceplugin/ctl/lint/selection.h"

namespace vdpa::ctl {
namespace {

constexpr const char* kNetworks = "k8s.v1.cni.cncf.io/networks";
// Multus replaces the cluster's default network by it.
constexpr const char* kDefaultNetwork = "v1.multus-cni.io/default-network";

struct Requested {
  unsigned devices = 0;      // of containers that run together
  unsigned initDevices = 0;  // of init containers that end before
  YAML::Node place;
};

// The pod, or the template of an object's pods.
YAML::Node podOf(const Object& object) {
  const std::vector<std::string> places[] = {
      {}, {"spec", "template"}, {"spec", "jobTemplate", "spec", "template"}, {"template"}};
  for (const auto& path : places) {
    const YAML::Node pod = at(object.node, path);
    const YAML::Node containers = at(pod, {"spec", "containers"});
    if (containers.IsDefined() && containers.IsSequence()) return pod;
  }
  return YAML::Node(YAML::NodeType::Undefined);
}

class PodCheck {
 public:
  PodCheck(const Object& object, const std::vector<Network>& networks,
           std::vector<Problem>& problems)
      : object_(object), networks_(networks), problems_(problems), pod_(podOf(object)) {
    for (const auto& network : networks)
      if (!network.config.empty() && !network.resource.empty()) ours_.insert(network.resource);
  }

  void run() {
    countRequests();
    if (!readSelections()) return;
    for (const auto& selection : selections_) count(selection);
    for (const auto& [resource, requested] : requested_) compare(resource, requested);
    for (const auto& [resource, number] : used_)
      if (ours_.contains(resource) && !requested_.contains(resource))
        report(annotation_, fmt::format("{} of the pod's networks need a device of {}, which no "
                                        "container requests; add it to a container's limits",
                                        number, resource));
  }

 private:
  void report(const YAML::Node& place, const std::string& message) {
    problems_.push_back(object_.problemAt(place, message));
  }

  bool isOurs(const std::string& resource) const {
    const std::string_view prefix(resource.data(), std::min(resource.find('/'), resource.size()));
    return prefix.size() < resource.size() &&
           (prefix == "vdpa.io" || prefix.ends_with(".vdpa.io") || ours_.contains(resource));
  }

  std::optional<unsigned> number(const std::string& resource, const YAML::Node& value) {
    const std::string text = value.IsScalar() ? value.Scalar() : "";
    unsigned number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return number;
    report(value, fmt::format("{} is '{}'; expected a whole number of devices", resource,
                              text.substr(0, 40)));
    return std::nullopt;
  }

  void countContainer(const YAML::Node& container, bool init) {
    const YAML::Node limits = at(container, {"resources", "limits"});
    const YAML::Node requests = at(container, {"resources", "requests"});
    if (requests.IsDefined() && requests.IsMap())
      for (const auto& pair : requests) {
        const std::string resource = pair.first.IsScalar() ? pair.first.Scalar() : "";
        if (!isOurs(resource)) continue;
        if (textAt(limits, {resource}) != textAt(requests, {resource}))
          report(pair.second,
                 fmt::format("{} in requests differs from limits, which Kubernetes refuses for "
                             "devices; state it in limits only",
                             resource));
      }
    if (!limits.IsDefined() || !limits.IsMap()) return;
    for (const auto& pair : limits) {
      const std::string resource = pair.first.IsScalar() ? pair.first.Scalar() : "";
      if (!isOurs(resource)) continue;
      const auto devices = number(resource, pair.second);
      auto& requested = requested_[resource];
      requested.place.reset(pair.first);
      (init ? requested.initDevices : requested.devices) += devices.value_or(0);
      if (!devices) unreadable_.insert(resource);
    }
  }

  void countRequests() {
    for (const auto& container : at(pod_, {"spec", "containers"})) countContainer(container, false);
    const YAML::Node init = at(pod_, {"spec", "initContainers"});
    if (!init.IsDefined() || !init.IsSequence()) return;
    for (const auto& container : init)  // a sidecar keeps running
      countContainer(container, textAt(container, {"restartPolicy"}) != "Always");
  }

  // False if there is nothing to compare.
  bool readSelections() {
    bool given = false;
    for (const char* key : {kDefaultNetwork, kNetworks}) {
      const YAML::Node annotation = at(pod_, {"metadata", "annotations", key});
      if (!annotation.IsDefined()) continue;
      given = true;
      annotation_.reset(annotation);
      try {
        if (!annotation.IsScalar())
          throw std::invalid_argument("it is not a string; expected one with JSON in it");
        if (annotation.Scalar().empty()) continue;  // none, as Multus has it
        for (auto& selection : parseSelections(annotation.Scalar()))
          selections_.push_back(std::move(selection));
      } catch (const std::invalid_argument& error) {
        report(annotation, fmt::format("{}: {}", key, error.what()));
        return false;
      }
    }
    if (given) return true;
    const YAML::Node outside = at(object_.node, {"metadata", "annotations", kNetworks});
    for (const auto& [resource, requested] : requested_) {
      if (requested.devices == 0 && requested.initDevices == 0) continue;
      if (outside.IsDefined())
        report(outside, fmt::format("{} is an annotation of the {}; Multus reads it from the pods: "
                                    "move it to the template's metadata",
                                    kNetworks, object_.kind));
      else
        report(requested.place,
               fmt::format("{} is requested, but the pod has no annotation {}: it would hold the "
                           "device and get no socket",
                           resource, kNetworks));
    }
    return false;
  }

  const Network* find(const Selection& selection) const {
    const std::string own = textAt(pod_, {"metadata", "namespace"});
    const std::string around = textAt(object_.node, {"metadata", "namespace"});
    const std::string& space =
        !selection.space.empty() ? selection.space : (around.empty() ? own : around);
    for (const auto& network : networks_)  // kubectl's --namespace may complete either
      if (network.name == selection.name &&
          (network.space == space || network.space.empty() || space.empty()))
        return &network;
    return nullptr;
  }

  void count(const Selection& selection) {
    const Network* network = find(selection);
    if (!network || (network->resource.empty() && network->config.empty())) {
      ++unknown_;
      return;
    }
    if (!network->resource.empty()) ++used_[network->resource];
    if (network->config.empty()) return;
    if (selection.ips > kMaxAddresses)
      report(annotation_, fmt::format("network {} gets {} addresses; at most {} are possible",
                                      selection.name, selection.ips, kMaxAddresses));
    if (selection.mac.empty()) return;
    try {
      parseAsMultusDoes(network->config, jsonText(nlohmann::json{{"mac", selection.mac}}));
    } catch (const cni::Error& error) {
      report(annotation_, fmt::format("network {}: {}", selection.name, error.what()));
    }
  }

  void compare(const std::string& resource, const Requested& requested) {
    if (unreadable_.contains(resource)) return;
    const auto found = used_.find(resource);
    const unsigned used = found == used_.end() ? 0 : found->second;
    const std::string counts =
        fmt::format("the containers request {} of {}, and {} of the pod's networks use {}",
                    requested.devices, resource, used, used == 1 ? "one" : "them");
    if (requested.devices == 0 && requested.initDevices > 0)
      report(requested.place, fmt::format("only an init container requests {}, whose devices are "
                                          "not the running pod's; request it in a container",
                                          resource));
    else if (used > requested.devices)
      report(annotation_, counts + ": each attachment needs a device of its own; request as many");
    else if (used + unknown_ < requested.devices)
      report(annotation_,
             counts + ": the other devices would get no socket; list a network once for each");
  }

  const Object& object_;
  const std::vector<Network>& networks_;
  std::vector<Problem>& problems_;
  const YAML::Node pod_;
  YAML::Node annotation_;
  std::set<std::string> ours_;  // resources of the checked networks
  std::map<std::string, Requested> requested_;
  std::set<std::string> unreadable_;
  std::vector<Selection> selections_;
  std::map<std::string, unsigned> used_;  // attachments, by their network's resource
  unsigned unknown_ = 0;                  // attachments of networks that are in no checked file
};

}  // namespace

bool hasPods(const Object& object) {
  return podOf(object).IsDefined();
}

void checkPods(const Object& object, const std::vector<Network>& networks,
               std::vector<Problem>& problems) {
  PodCheck(object, networks, problems).run();
}

}  // namespace vdpa::ctl
