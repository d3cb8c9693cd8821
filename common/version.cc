// PROGRAM_VERSION is defined for this file only.
#include "common/version.h"

namespace vdpa {

const char* programVersion() {
  return PROGRAM_VERSION;
}

}  // namespace vdpa
