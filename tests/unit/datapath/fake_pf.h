// A PF eth1 with VF 2, as the kernel shows it by rtnetlink: answers each request of the Vf objects
// that it hands out, and counts them. It stops a message at the first setting that it refuses.
#pragma once

#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/message.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/hardware/vf.h"
#include "deviceplugin/datapath/model/vf_values.h"

namespace vdpa::datapath {

// Changed between requests only: its threads wait for one then.
class FakePf {
 public:
  FakePf() = default;
  ~FakePf();
  FakePf(const FakePf&) = delete;
  FakePf& operator=(const FakePf&) = delete;

  Vf vf();

  VfValues values = unreportedVf();
  bool present = true;          // else its netdev is gone
  bool settable = true;         // its driver has VF settings
  std::set<VfPart> refused;     // "no such setting": EOPNOTSUPP
  std::set<VfPart> ignored;     // success, but nothing changes
  std::function<void()> onSet;  // before each message that sets something
  std::vector<VfPart> written;  // those that were not refused, in their order
  unsigned gets = 0, sets = 0;  // requests

 private:
  void serve(int socket);
  void answer(int socket, const netlink::Message& request);
  void show(int socket, const netlink::Message& request) const;
  netlink::Error set(const netlink::Message& request);
  void take(const netlink::Attribute& attribute);

  std::vector<UniqueFd> sockets_;
  std::vector<std::thread> threads_;
};

}  // namespace vdpa::datapath
