// Which of the available devices a container should get.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vdpa {

// "nic-2" before "nic-10": runs of digits compare as numbers.
bool naturalLess(std::string_view a, std::string_view b);

// `mustInclude` first, then the first available ones in natural order. Throws std::invalid_argument
// when that isn't possible, saying why.
std::vector<std::string> preferDevices(std::vector<std::string> available,
                                       const std::vector<std::string>& mustInclude, int count);

}  // namespace vdpa
