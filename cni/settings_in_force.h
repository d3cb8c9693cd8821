// Whether all that was asked for is in force: a datapath of another release may not know all of it.
#pragma once

#include "datapath.pb.h"

namespace vdpa::cni {

// Throw Error (invalidConfig), which names the keys that the answer does not repeat, and both
// versions.
void requireInForce(const datapath::v1::AttachRequest& request,
                    const datapath::v1::AttachResponse& response);
void requireInForce(const datapath::v1::SetAddressesRequest& request,
                    const datapath::v1::SetAddressesResponse& response);

}  // namespace vdpa::cni
