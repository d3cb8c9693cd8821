#include "deviceplugin/datapath/pmd/hello.h"

#include <unistd.h>

#include "common/version.h"
#include "deviceplugin/datapath/pmd/options.h"

namespace vdpa::pmd {

control::HelloAnswer helloOf(const PmdOptions& options) {
  control::HelloAnswer hello;
  hello.set_program("vdpa-pmd");
  hello.set_version(programVersion());
  hello.set_pid(::getpid());
  auto& pmd = *hello.mutable_pmd();
  pmd.set_device(options.device);
  pmd.set_driver(options.driver);
  pmd.set_socket(options.socket);
  return hello;
}

}  // namespace vdpa::pmd
