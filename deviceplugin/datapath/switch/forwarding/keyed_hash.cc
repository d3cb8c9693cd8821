#include "deviceplugin/datapath/switch/forwarding/keyed_hash.h"

#include <sys/random.h>

#include "common/errors.h"

namespace vdpa::vswitch {

KeyedHash::Secret KeyedHash::randomSecret() {
  Secret secret;
  // A request for up to 256 bytes is complete and not interrupted by signals (random(7)).
  checked(static_cast<int>(::getrandom(&secret, sizeof secret, 0)),
          "cannot get random bytes for the MAC table's hash");
  return secret;
}

}  // namespace vdpa::vswitch
