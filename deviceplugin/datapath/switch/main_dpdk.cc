// vdpa-switch-dpdk: vdpa-switch with an uplink, by DPDK.
#include "deviceplugin/datapath/switch/program.h"
#include "deviceplugin/datapath/switch/uplink/open_uplink.h"

int main(int argc, char** argv) {
  return vdpa::vswitch::runSwitch("vdpa-switch-dpdk", argc, argv, vdpa::vswitch::openUplink);
}
