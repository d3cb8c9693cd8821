#include "tests/unit/datapath/control_program_path.h"

#include <string>

namespace vdpa::datapath {

std::string controlProgram() {
  return CONTROL_PROGRAM;
}

}  // namespace vdpa::datapath
