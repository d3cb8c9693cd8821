"""The previous release's attachments of real devices are adopted, served and undone. Its records were recorded here."""

import contextlib
import json

import pytest
from datapath import Datapath, owner, read_json
from hardware import VIRTIO_PF, run
from kernel_devices import kernel, offer, vdpa_mac
from kubelet import PodResources
from neighbour import RECORDED, here
from support import wait_until

HARDWARE = RECORDED / "hardware"


@pytest.fixture
def left(directory):
    """Starts a datapath over the records of one device."""
    def start(device):
        for kind in "owners", "provisioned":
            (directory / "state" / kind).mkdir(parents=True)
            for path in (HARDWARE / kind).glob(f"{device}*"):
                (directory / "state" / kind / path.name).write_text(json.dumps(here(read_json(path))))
        return datapath.enter_context(Datapath(directory)).wait_serving()
    with PodResources(directory), contextlib.ExitStack() as datapath:
        yield start


def test_settings_of_a_vf_and_a_mac_are_put_back(node, igb, left):
    record = read_json(HARDWARE / f"owners/{igb.vf}.json")
    asked, before = record["port"], igb.found()
    node.add_vdpa("sim0", "vdpasim_net", "mac", asked["mac"])
    run("ip", "link", "set", igb.pf, "vf", 0, "vlan", asked["vlan"], "qos", asked["vlanQos"], "spoofchk", "off", "trust", "on",
        "max_tx_rate", asked["maxTxRate"])
    assert igb.found() != before
    datapath = left(igb.vf)
    datapath.set_devices(igb.offered()).wait_healthy(igb.vf)
    assert datapath.attachment(igb.vf).settings.mac == asked["mac"]
    assert datapath.detach(owner("c3"))
    assert igb.found() == before and vdpa_mac("sim0") == record["found"]["vdpaMac"]


def test_a_device_that_it_made_is_served_and_undone(node, left):
    node.make_vfs(VIRTIO_PF, 2)
    made = node.vf(0)
    node.bind(made, "vp-vdpa")
    node.add_vdpa(f"vdpa-{made}", f"pci/{made}")
    identity = node.identity(f"vdpa-{made}")
    datapath = left(made)
    datapath.set_devices(offer(kernel(made, f"vdpa-{made}", provision=True))).wait_healthy(made)
    wait_until(lambda: datapath.attachment(made).state == "waiting", datapath.log)
    assert node.identity(f"vdpa-{made}") == identity, "it was remade while its pod ran"
    assert datapath.detach(owner("c4"))
    datapath.set_devices()
    wait_until(lambda: not list((datapath.state_dir / "provisioned").iterdir()), datapath.log)
    assert node.driver(made) == "virtio-pci" and node.vdpa_devices() == {}
