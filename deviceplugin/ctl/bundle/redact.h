// Takes secrets out of texts that leave the node: configurations and logs of other programs may
// have some.
#pragma once

#include <string>
#include <string_view>

namespace vdpa::ctl {

// Replaces the values of keys that are named for secrets ("token": "..."; password=...), bearer and
// JSON web tokens, and private keys in PEM, by "<removed>".
std::string withoutSecrets(std::string_view text);

}  // namespace vdpa::ctl
