// Which fields of a request of vdpa.datapath.v1 its receiver knows. Programs of neighbouring
// releases meet, and a field that one of them does not know must not be dropped in silence.
#pragma once

#include <set>
#include <string>

#include "datapath.pb.h"

namespace vdpa {

// For the answer to `request`: this program's version, and what it does not know of the request.
datapath::v1::Receiver receiverOf(const google::protobuf::Message& request);

// The fields that are set in `message` (a part of SetDevicesRequest) and that its receiver does not
// know, as "KernelDevice.attributes"; those that it may ignore are not among them. A null pointer
// is a receiver of release 0.1.0, which does not report its version.
std::set<std::string> unknownTo(const datapath::v1::Receiver* receiver,
                                const google::protobuf::Message& message);

}  // namespace vdpa
