// This build's version. Only version.cc knows it, so that changing it only relinks the programs.
#pragma once

namespace vdpa {

// Such as "0.1.0"; printed by --version and reported in the answer to "hello".
const char* programVersion();

}  // namespace vdpa
