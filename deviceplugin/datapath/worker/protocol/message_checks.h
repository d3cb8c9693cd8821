// What each request must look like on the wire, before anyone looks at its meaning.
#pragma once

#include "deviceplugin/datapath/worker/protocol/message.h"

namespace vdpa::worker {

// Throws ProtocolError, naming the request, for an unknown request, a wrong payload length, wrong
// flags or a wrong number of descriptors.
void checkForm(const Message& message);

}  // namespace vdpa::worker
