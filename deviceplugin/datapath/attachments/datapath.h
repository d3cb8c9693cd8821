// A node's attachments and the operations on them.
#pragma once

#include <functional>
#include <utility>

#include "deviceplugin/datapath/attachments/attachments.h"
#include "deviceplugin/datapath/attachments/drain.h"
#include "deviceplugin/datapath/attachments/offers.h"
#include "deviceplugin/datapath/attachments/recovery.h"
#include "deviceplugin/datapath/attachments/status.h"
#include "deviceplugin/datapath/attachments/upgrade.h"

namespace vdpa::datapath {

struct Datapath {
  // Resumes from the owner records. See Node for the arguments.
  Datapath(Node::Options options, std::function<void()> onHealth)
      : node(std::move(options), std::move(onHealth)) {
    Recovery(node).run();
  }

  Node node;
  Offers offers{node};
  Attachments attachments{node};
  Status status{node};
  Upgrade upgrade{node};
  Drain drain{node};
};

}  // namespace vdpa::datapath
