// vdpactl detach. vdpa-datapath decides whether to refuse; this asks the person to confirm.
#include <fmt/core.h>
#include <unistd.h>

#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "deviceplugin/ctl/client.h"
#include "deviceplugin/ctl/commands.h"

namespace vdpa::ctl {
namespace {

std::string describe(const datapath::v1::Attachment& attachment) {
  const auto& owner = attachment.owner();
  if (owner.container_id().empty()) return "an unknown owner";
  const std::string pod =
      owner.pod_name().empty() ? "" : owner.pod_namespace() + "/" + owner.pod_name() + ", ";
  return fmt::format("{}container {}, interface {}", pod, owner.container_id(), owner.interface());
}

datapath::v1::Attachment find(const datapath::v1::ListResponse& list,
                              const std::vector<std::string>& what) {
  std::vector<datapath::v1::Attachment> found;
  for (const auto& a : list.attachments()) {
    const auto& owner = a.owner();
    const bool meant = what.size() == 1 ? a.device_id() == what[0]
                                        : owner.container_id().starts_with(what[0]) &&
                                              owner.interface() == what[1];
    if (meant) found.push_back(a);
  }
  if (found.size() == 1) return found[0];
  if (found.size() > 1)
    throw std::runtime_error(fmt::format(
        "{} containers begin with {}: give a longer prefix, or the device", found.size(), what[0]));
  if (what.size() == 1)
    throw std::runtime_error(
        fmt::format("device {} is not attached; see vdpactl attachments", what[0]));
  throw std::runtime_error(
      fmt::format("interface {} of container {} has no device; see vdpactl attachments -o json",
                  what[1], what[0]));
}

void confirm(const datapath::v1::Attachment& attachment) {
  if (!::isatty(STDIN_FILENO))
    throw std::runtime_error("--force asks before it acts, and there is no terminal: add --yes");
  fmt::print(
      stderr,
      "This detaches {} from {} ({}).\nIf that pod is still running, it loses this interface at "
      "once. Type yes to continue: ",
      attachment.device_id(), describe(attachment), attachment.state());
  std::string answer;
  std::getline(std::cin, answer);
  if (answer != "yes") throw std::runtime_error("not confirmed: nothing was done");
}

}  // namespace

void detach(const Options& options, const std::vector<std::string>& what, bool force, bool yes) {
  DatapathClient client(options.datapathSocket);
  const auto attachment = find(client.list(), what);
  if (force && !yes) confirm(attachment);
  datapath::v1::DetachRequest request;
  request.set_device_id(attachment.device_id());
  // Only from the owner that was shown.
  request.set_container_id(attachment.owner().container_id());
  request.set_interface(attachment.owner().interface());
  request.set_force(force);
  if (client.detach(request).detached())
    fmt::print("detached {} from {}\n", attachment.device_id(), describe(attachment));
  else
    fmt::print("device {} is no longer attached\n", attachment.device_id());
}

}  // namespace vdpa::ctl
