"""The part of record.py that runs in the test machine with the previous release's programs: records their owner records of real
devices. hardware.py OUT"""

import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

from datapath import Datapath, owner, settings
from hardware import VIRTIO_PF, Hardware
from kernel_devices import SIMULATOR_MAC, Igb, kernel, offer
from kubelet import PodResources

ASKED = settings(mac="02:00:00:00:00:09", vlan=100, vlan_qos=3, spoof_check=False, trust=True, max_tx_rate=100)


def main(out):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="vdpa-"))
    node = Hardware()
    node.clear()
    igb = Igb(node)
    node.add_vdpa("sim0", "vdpasim_net", "mac", SIMULATOR_MAC)
    node.make_vfs(VIRTIO_PF, 2)
    made = node.vf(0)
    node.bind(made, "virtio-pci")
    with PodResources(directory), Datapath(directory) as datapath:
        devices = [igb.offered().devices[0], kernel(made, f"vdpa-{made}", provision=True)]
        datapath.wait_serving().set_devices(offer(*devices)).wait_healthy(made).wait_healthy(igb.vf)
        datapath.attach(owner("c3"), igb.vf, ASKED)
        datapath.attach(owner("c4"), made)
        datapath.kill()
        for path in datapath.state_dir.rglob("*"):
            if path.is_file() and path.suffix != ".lock":
                (out / path.relative_to(datapath.state_dir)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, out / path.relative_to(datapath.state_dir))


main(pathlib.Path(sys.argv[1]))
