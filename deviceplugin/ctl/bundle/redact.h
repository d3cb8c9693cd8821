// Takes secrets out of texts that leave the node: configurations and logs of other programs may
// have some.
#pragma once

#include <string>
#include <string_view>

namespace vdpa::ctl {

// Replaces by "<removed>": the values of keys and options that are named for secrets ("token":
// "..."; password=...; --password ...), whole arrays, objects and YAML blocks among them; bearer
// and JSON web tokens; users and passwords in URLs; private keys in PEM. Rather too much than too
// little.
std::string withoutSecrets(std::string_view text);

}  // namespace vdpa::ctl
