// vdpa-switch: the layer-2 switch behind one resource's software ports. vdpa-datapath starts and
// supervises it.
#include "deviceplugin/datapath/switch/program.h"

int main(int argc, char** argv) {
  return vdpa::vswitch::runSwitch("vdpa-switch", argc, argv, {});
}
