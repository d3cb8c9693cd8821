// See the header.
#include "tests/unit/datapath/control_program_path.h"

namespace vdpa::datapath {

std::string controlProgram() {
  return CONTROL_PROGRAM;
}

}  // namespace vdpa::datapath
