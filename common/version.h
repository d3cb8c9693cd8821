// This build's version. It alone knows it, so that another version of all programs is a relink.
#pragma once

namespace vdpa {

// As in "0.1.0"; what --version prints, and what a process tells in its "hello".
const char* programVersion();

}  // namespace vdpa
