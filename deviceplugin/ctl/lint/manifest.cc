#include "deviceplugin/ctl/lint/manifest.h"

#include <fmt/core.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/ctl/lint/problem.h"

namespace vdpa::ctl {
namespace {

// A list may contain a list; an alias could make that endless.
constexpr int kMaxDepth = 4;

unsigned lineOf(const YAML::Mark& mark) {
  return mark.line < 0 ? 1 : static_cast<unsigned>(mark.line) + 1;
}

void append(const std::string& file, const std::shared_ptr<const std::string>& text,
            const YAML::Node& node, int depth, std::vector<Object>& objects) {
  if (!node.IsMap()) return;
  const YAML::Node items = at(node, {"items"});
  std::string kind = textAt(node, {"kind"});
  if (kind.ends_with("List") && items.IsDefined() && items.IsSequence()) {
    if (depth == kMaxDepth) return;
    for (const auto& item : items) append(file, text, item, depth + 1, objects);
    return;
  }
  objects.push_back({file, text, node, std::move(kind)});
}

}  // namespace

YAML::Node at(const YAML::Node& node, const std::vector<std::string>& path) {
  YAML::Node found = node;
  for (const auto& key : path) {
    YAML::Node next(YAML::NodeType::Undefined);
    if (found.IsMap())
      for (const auto& pair : found)
        if (pair.first.IsScalar() && pair.first.Scalar() == key) next.reset(pair.second);
    found.reset(next);
    if (!found.IsDefined()) break;
  }
  return found;
}

std::string textAt(const YAML::Node& node, const std::vector<std::string>& path) {
  const YAML::Node found = at(node, path);
  return found.IsDefined() && found.IsScalar() ? found.Scalar() : "";
}

Problem Object::problemAt(const YAML::Node& place, const std::string& message) const {
  return {file, lineOf(place.IsDefined() ? place.Mark() : node.Mark()), message};
}

void readObjects(const std::string& file, const std::string& text, std::vector<Object>& objects,
                 std::vector<Problem>& problems) {
  const auto shared = std::make_shared<const std::string>(text);
  try {
    for (const auto& document : YAML::LoadAll(text)) append(file, shared, document, 0, objects);
  } catch (const YAML::Exception& error) {
    problems.push_back({file, lineOf(error.mark), fmt::format("not YAML: {}", error.msg)});
  }
}

}  // namespace vdpa::ctl
