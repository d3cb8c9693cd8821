// The node's state as a feature file, of which Node Feature Discovery's worker makes node labels:
// the plugin itself never speaks to the API server.
#pragma once

#include <string>
#include <vector>

#include "deviceplugin/kubelet/resource_plugins.h"
#include "deviceplugin/resources/offer.h"

namespace vdpa::plugin {

// The file's content: a line of KEY=VALUE for each label. A resource whose label would have a name
// of more than 63 bytes, which Kubernetes refuses, has none.
std::string featureLines(const std::vector<ResourceOffer>& offers,
                         const std::vector<ResourcePlugins::Summary>& summaries, bool drained);

// The file "vdpa" in Node Feature Discovery's directory. Loop thread only.
class FeatureFile {
 public:
  // An empty directory: no file.
  explicit FeatureFile(std::string directory) : directory_(std::move(directory)) {}
  // Removes the file: a plugin that ends in order leaves no labels.
  ~FeatureFile();
  FeatureFile(const FeatureFile&) = delete;
  FeatureFile& operator=(const FeatureFile&) = delete;

  bool wanted() const { return !directory_.empty(); }
  // Replaces the file if `text` is new. False: it failed, which is logged; call it again later.
  bool write(const std::string& text);

 private:
  std::string path() const { return directory_ + "/vdpa"; }

  const std::string directory_;
  std::string written_;
  std::string lastError_;
};

}  // namespace vdpa::plugin
