#include "common/vdpa_attributes.h"

#include <fmt/core.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/virtio_features.h"

namespace vdpa {
namespace {

// The features that a network's MAC or MTU and any virtio 1 device need, as far as the parent has
// them. The kernel refuses attributes whose features are missing from a list of features. Queue
// pairs add none: without MQ in its list, the configuration has at most one pair.
uint64_t impliedFeatures(const VdpaAttributes& attributes) {
  uint64_t features = kFeatureVersion1 | kFeatureAccessPlatform;
  if (attributes.mac) features |= kFeatureMac;
  if (attributes.mtu != 0) features |= kFeatureMtu;
  return features;
}

}  // namespace

std::string describe(const VdpaAttributes& attributes) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (const auto pairs = attributes.queuePairs)
    add(*pairs == 0 ? "all queue pairs"
                    : fmt::format("{} queue pair{}", *pairs, *pairs == 1 ? "" : "s"));
  if (attributes.mtu != 0) add(fmt::format("mtu {}", attributes.mtu));
  if (attributes.mac) add("mac " + attributes.mac->text());
  if (const auto features = attributes.features)
    add(*features == 0 ? "all features" : fmt::format("features {}", featureNames(*features)));
  return text.empty() ? "the driver's defaults" : text;
}

std::string unsupported(const VdpaAttributes& attributes, const VdpaParent& parent) {
  const unsigned most = parent.maxVirtqueues / 2;
  if (const unsigned pairs = attributes.queuePairs.value_or(0); most > 0 && pairs > most)
    return fmt::format("vdpa.queuePairs is {}, but {} makes at most {}", pairs, parent.name, most);
  const uint64_t missing = attributes.features.value_or(0) & ~parent.features;
  if (parent.features != 0 && missing != 0)
    return fmt::format("vdpa.features has {}, which {} does not support; it supports {}",
                       featureNames(missing), parent.name, featureNames(parent.features));
  return "";
}

bool dependsOnMac(const VdpaAttributes& wanted, const VdpaParent& parent) {
  VdpaParent withMac = parent;
  withMac.hasMac = true;
  const auto features = waysToMake(wanted, withMac)[0].features;
  return !wanted.mac && (features.value_or(0) & kFeatureMac) != 0;
}

std::vector<VdpaAttributes> waysToMake(const VdpaAttributes& wanted, const VdpaParent& parent) {
  VdpaAttributes first = wanted;
  if (wanted.queuePairs == 0u) {
    const unsigned most = parent.maxVirtqueues / 2;
    const bool onePair =
        wanted.features.value_or(0) != 0 && !(*wanted.features & kFeatureMultiqueue);
    first.queuePairs = most > 1 && !onePair ? std::optional(most) : std::nullopt;
  }
  if (wanted.features == uint64_t{0})
    first.features = parent.features != 0 ? std::optional(parent.features) : std::nullopt;
  else if (wanted.features)
    *first.features |= impliedFeatures(first) & parent.features;
  if (first.features && !wanted.mac && !parent.hasMac) *first.features &= ~kFeatureMac;
  std::vector<VdpaAttributes> ways{first};

  VdpaAttributes asked = first;
  if (wanted.queuePairs == 0u) asked.queuePairs.reset();
  if (wanted.features == uint64_t{0}) asked.features.reset();
  if (asked != first) ways.push_back(asked);
  return ways;
}

}  // namespace vdpa
