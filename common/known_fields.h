// The fields of a vdpa.datapath.v1 request that its receiver knows. Programs of neighbouring
// releases work together, and must not silently drop fields that they don't know.
#pragma once

#include <set>
#include <string>

#include "datapath.pb.h"

namespace vdpa {

// For the answer to `request`: this program's version and the fields that it does not know.
datapath::v1::Receiver receiverOf(const google::protobuf::Message& request);

// The fields that are set in `message` (a part of SetDevicesRequest) and unknown to its receiver,
// such as "KernelDevice.attributes", except those that it may ignore. A null `receiver` is of
// release 0.1.0, which does not report its version.
std::set<std::string> unknownTo(const datapath::v1::Receiver* receiver,
                                const google::protobuf::Message& message);

}  // namespace vdpa
