// PROGRAM_VERSION is set for this file alone.
#include "common/version.h"

namespace vdpa {

const char* programVersion() {
  return PROGRAM_VERSION;
}

}  // namespace vdpa
