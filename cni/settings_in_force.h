// Checks that every requested setting is in force: a datapath of another release may not know some.
#pragma once

#include "datapath.pb.h"

namespace vdpa::cni {

// Throw Error (invalidConfig) naming the keys that the answer does not repeat, and both versions.
void requireInForce(const datapath::v1::AttachRequest& request,
                    const datapath::v1::AttachResponse& response);
void requireInForce(const datapath::v1::SetAddressesRequest& request,
                    const datapath::v1::SetAddressesResponse& response);

}  // namespace vdpa::cni
