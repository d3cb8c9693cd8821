// vdpactl lint
#include "deviceplugin/ctl/lint/lint.h"

#include <fmt/core.h>

#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/atomic_file.h"
#include "common/json.h"
#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"

namespace vdpa::ctl {
namespace {

std::string readInput(const std::string& file) {
  if (file != "-") return readFile(file);
  std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  if (std::cin.bad()) throw std::runtime_error("cannot read standard input");
  return text;
}

}  // namespace

bool lint(const Options& options, const std::vector<std::string>& files) {
  std::vector<std::pair<std::string, std::string>> texts;
  for (const auto& file : files) texts.emplace_back(file == "-" ? "stdin" : file, readInput(file));
  const LintResult result = lintTexts(texts);

  auto array = nlohmann::json::array();
  for (const auto& problem : result.problems) {
    if (options.output == Output::json)
      array.push_back(
          {{"file", problem.file}, {"line", problem.line}, {"message", problem.message}});
    else
      fmt::print("{}:{}: {}\n", problem.file, problem.line, problem.message);
  }
  if (options.output == Output::json) fmt::print("{}\n", anyJsonText(array, 2));
  if (result.problems.empty() && result.networks == 0 && result.pods == 0)
    fmt::print(stderr, "vdpactl: there is no network and no pod to check in these files\n");
  return result.problems.empty();
}

}  // namespace vdpa::ctl
