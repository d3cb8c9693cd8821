// Aligned columns for people.
#pragma once

#include <string>
#include <vector>

namespace vdpa::ctl {

class Table {
 public:
  explicit Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }

  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  // One line per row, each column as wide as its widest cell; an empty cell is shown as "-".
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace vdpa::ctl
