// vdpa-worker: serves one pod's vhost-user socket. Instance puts it together.
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include "common/command_line.h"
#include "common/control_lock.h"
#include "common/log.h"
#include "common/mac_address.h"
#include "common/resource_limit.h"
#include "common/version.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/worker/instance.h"
#include "deviceplugin/datapath/worker/options.h"

namespace vdpa::worker {

using vhost_user::kMaxQueueSize;

namespace {

int run(int argc, char** argv) {
  CommandLine app{
      "Serves the vhost-user socket of one device: checks the pod's messages, and passes its "
      "queues to the engine behind --engine or --switch-port, or to the kernel's --vhost-vdpa. "
      "Started by vdpa-datapath, one for each attached device."};
  WorkerOptions options;
  std::string mode = "0666", switchPort, mac, logLevel = "info", logFormat = "text";
  app.option("--device", options.device, "ID of the device, for messages").required();
  app.option("--socket", options.socket.path, "the pod's socket, created here").required();
  app.option("--socket-uid", options.socket.uid, "owner of the socket").showDefault();
  app.option("--socket-gid", options.socket.gid, "group of the socket").showDefault();
  app.option("--socket-mode", mode, "permissions of the socket, octal")
      .check(
          [](const std::string& text) {
            return text.find_first_not_of("01234567") == std::string::npos && text.size() < 5
                       ? std::string()
                       : std::string("expected octal permissions such as 0660");
          },
          "OCTAL")
      .showDefault();
  app.option("--selinux-label", options.socket.selinuxLabel, "SELinux label of the socket");
  app.group("engine", "The engine that moves the packets");
  app.option("--engine", options.engine, "vhost-user socket of vdpa-pmd");
  app.option("--switch-port", switchPort, "vhost-user socket of a port of vdpa-switch");
  app.option("--vhost-vdpa", options.vhostVdpa,
             "character device of the kernel: /dev/vhost-vdpa-N");
  app.endGroup();
  app.option("--inode", options.inode,
             "of the character device: a new one under its name is not opened");
  app.option("--control", options.control, "control socket, created here").required();
  app.option("--control-fd", options.controlFd, "a descriptor that already listens there");
  app.option("--queue-pairs", options.queuePairs, "most queue pairs offered to the pod")
      .range(1, 128)
      .showDefault();
  app.option("--queue-size", options.queueSize, "largest ring accepted, in entries")
      .range(2u, kMaxQueueSize)
      .showDefault();
  app.choice<bool>("--offloads", options.offloads,
                   "offer checksum and segmentation offloads, as far as the engine has them",
                   {{"true", true}, {"false", false}});
  app.option("--mac", mac, "MAC address reported to front-ends that ask [the device's own]");
  app.option("--mtu", options.mtu, "MTU reported to front-ends that ask [the device's own]")
      .range(68, 65535);
  app.option("--log-level", logLevel, "trace, debug, info, warning, error or off").showDefault();
  app.option("--log-format", logFormat, "text or json").showDefault();
  app.version(programVersion());
  if (const auto status = app.parse(argc, argv)) return *status;

  initLogging("vdpa-worker", logLevel, logFormat);
  options.socket.mode = static_cast<mode_t>(std::stoul(mode, nullptr, 8));
  options.behindSwitch = !switchPort.empty();
  if (options.behindSwitch) options.engine = switchPort;
  if (!mac.empty()) options.mac = MacAddress::parseOrThrow(mac);
  const ControlLock lock(options.control);
  raiseDescriptorLimit();  // a front-end may hand over three eventfds a ring
  if (!options.vhostVdpa.empty()) raiseMemoryLimit();
  Instance(std::move(options)).run();
  return 0;
}

}  // namespace
}  // namespace vdpa::worker

int main(int argc, char** argv) {
  try {
    return vdpa::worker::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vdpa-worker: %s\n", error.what());
    return 1;
  }
}
