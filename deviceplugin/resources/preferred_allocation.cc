#include "deviceplugin/resources/preferred_allocation.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "deviceplugin/config/config.h"

namespace vdpa::plugin {
namespace {

bool isDigit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

// Removes the run of digits at the start of `text` and returns it without leading zeros.
std::string_view takeNumber(std::string_view& text) {
  const size_t end = std::min(text.find_first_not_of("0123456789"), text.size());
  std::string_view number = text.substr(0, end);
  text.remove_prefix(end);
  number.remove_prefix(std::min(number.find_first_not_of('0'), number.size()));
  return number;
}

struct Taken {
  std::vector<std::string> ids;
  std::map<std::string, unsigned> fromPf;
  std::map<int, unsigned> fromNode;

  void add(const Choice& choice) {
    ids.push_back(choice.id);
    ++fromPf[choice.pf];
    ++fromNode[choice.numaNode];
  }
};

// A node that can provide all remaining devices: preferably the one with most devices taken
// already, then the one with the fewest left over, so that large groups stay for large requests.
std::optional<int> bestNode(const Taken& taken, const std::vector<Choice>& available,
                            size_t wanted) {
  std::map<int, size_t> free;
  for (const auto& choice : available) ++free[choice.numaNode];
  std::optional<int> best;
  const auto taking = [&](int node) {
    const auto found = taken.fromNode.find(node);
    return found == taken.fromNode.end() ? 0u : found->second;
  };
  const auto better = [&](int node, int other) {
    const size_t missing = wanted - taken.ids.size();
    const bool fits = free[node] >= missing, otherFits = free[other] >= missing;
    if (fits != otherFits) return fits;
    if (taking(node) != taking(other)) return taking(node) > taking(other);
    return fits ? free[node] < free[other] : free[node] > free[other];
  };
  for (const auto& [node, count] : free)
    if (!best || better(node, *best)) best = node;
  return best;
}

// Takes devices of one node (or of any) until there are enough. `available` is in natural order and
// stays so.
void takeFromNode(Taken& taken, std::vector<Choice>& available, size_t wanted,
                  AllocationOrder order, std::optional<int> node) {
  std::map<std::string, size_t> left;  // of each PF
  for (const auto& choice : available) ++left[choice.pf];
  while (taken.ids.size() < wanted) {
    auto best = available.end();
    for (auto choice = available.begin(); choice != available.end(); ++choice) {
      if (node && choice->numaNode != *node) continue;
      if (best == available.end()) {
        best = choice;
        continue;
      }
      const unsigned used = taken.fromPf[choice->pf], usedBest = taken.fromPf[best->pf];
      const size_t rest = left[choice->pf], restBest = left[best->pf];
      const bool better = order == AllocationOrder::spread
                              ? used < usedBest || (used == usedBest && rest > restBest)
                              : used > usedBest || (used == usedBest && rest < restBest);
      if (better) best = choice;
    }
    if (best == available.end()) return;
    --left[best->pf];
    taken.add(*best);
    available.erase(best);
  }
}

}  // namespace

bool naturalLess(std::string_view a, std::string_view b) {
  const std::string_view wholeA = a, wholeB = b;
  while (!a.empty() && !b.empty()) {
    if (isDigit(a.front()) && isDigit(b.front())) {
      const std::string_view x = takeNumber(a), y = takeNumber(b);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else {
      if (a.front() != b.front()) return a.front() < b.front();
      a.remove_prefix(1);
      b.remove_prefix(1);
    }
  }
  if (a.empty() != b.empty()) return a.empty();
  return wholeA < wholeB;
}

std::vector<std::string> preferDevices(std::vector<Choice> available,
                                       const std::vector<std::string>& mustInclude, int count,
                                       AllocationOrder order) {
  if (count < 0 || mustInclude.size() > static_cast<size_t>(count))
    throw std::invalid_argument(fmt::format(
        "{} devices must be included, but only {} are requested", mustInclude.size(), count));
  const auto wanted = static_cast<size_t>(count);
  std::sort(available.begin(), available.end(),
            [](const Choice& a, const Choice& b) { return naturalLess(a.id, b.id); });
  available.erase(std::unique(available.begin(), available.end(),
                              [](const Choice& a, const Choice& b) { return a.id == b.id; }),
                  available.end());

  Taken taken;
  for (const auto& id : mustInclude) {
    const auto found = std::find_if(available.begin(), available.end(),
                                    [&](const Choice& choice) { return choice.id == id; });
    if (found != available.end()) {
      taken.add(*found);
      available.erase(found);
    } else if (std::find(taken.ids.begin(), taken.ids.end(), id) == taken.ids.end()) {
      throw std::invalid_argument(
          fmt::format("device {} must be included but is not available", id));
    }
  }
  if (taken.ids.size() + available.size() < wanted)
    throw std::invalid_argument(fmt::format("{} devices are requested, but only {} are available",
                                            count, taken.ids.size() + available.size()));
  takeFromNode(taken, available, wanted, order, bestNode(taken, available, wanted));
  takeFromNode(taken, available, wanted, order, std::nullopt);
  return taken.ids;
}

}  // namespace vdpa::plugin
