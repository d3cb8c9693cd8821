// Checks the form of each request on the wire, before its meaning is checked.
#pragma once

#include "deviceplugin/datapath/vhost_user/message.h"

namespace vdpa::vhost_user {

// Throws ProtocolError, naming the request, for an unknown request, a wrong payload length, wrong
// flags or a wrong number of descriptors.
void checkForm(const Message& message);

}  // namespace vdpa::vhost_user
