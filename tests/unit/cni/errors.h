// An exception of the CNI plugin's library as text: "7: the message".
#pragma once

#include <functional>
#include <string>

#include "cni/error.h"

namespace vdpa::cni {

inline std::string errorOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return std::to_string(error.code()) + ": " + error.what();
  }
  return "no error";
}

}  // namespace vdpa::cni
