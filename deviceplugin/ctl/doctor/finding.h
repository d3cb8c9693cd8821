// What one check of `vdpactl doctor` found.
#pragma once

#include <string>

namespace vdpa::ctl {

enum class Verdict {
  pass,
  warn,    // works, but not as it should
  fail,    // something does not work
  unseen,  // cannot be seen from where this program runs
};

struct Finding {
  std::string check;  // its name: "kernel"
  Verdict verdict = Verdict::pass;
  std::string text;
  std::string remedy = {};  // empty: none is needed
};

}  // namespace vdpa::ctl
