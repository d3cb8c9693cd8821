"""vdpa-device-plugin and vendors' cards, on a generated sysfs: which are offered, and the attributes of their devices."""

import subprocess

import pytest
from device_plugin import PROGRAM, DevicePlugin, write_config
from fake_datapath import FakeDatapath
from kubelet import Kubelet
from support import wait_until
from sysfs import Sysfs

MELLANOX = {"name": "nic", "devices": [{"vendors": ["15b3"]}], "provision": "vdpa"}


@pytest.fixture
def scene(directory):
    sysfs = Sysfs(directory / "sys", pfs=2, vfs=1)
    for n in range(2):
        sysfs.remove_vdpa(n, 0, f"vdpa{n}")
    kubelet, datapath = Kubelet(directory).start(), FakeDatapath(directory).start()
    plugins = []

    def start(resource):
        config = write_config(directory, resource)
        plugins.append(DevicePlugin(directory, config, "--sysfs", sysfs.root, own_network=True))
        return plugins[-1]

    yield sysfs, kubelet, datapath, start
    for plugin in plugins:
        plugin.stop()
    kubelet.stop()
    datapath.stop()


def kernel_side(datapath):
    devices = datapath.sets[-1].resources[0].devices if datapath.sets else []
    return devices[0].kernel if devices else None


def test_a_pf_and_a_connectx4_are_not_offered_while_software_ports_are(scene):
    sysfs, kubelet, _, start = scene
    pf, old, old_vf = sysfs.pf(0), sysfs.pf(1), sysfs.vf(1, 0)
    sysfs.remove_vf(0, 0)
    (sysfs.path(pf) / "virtfn0").unlink()  # a PF without VFs, which is therefore not excluded as a PF with VFs
    sysfs.set_driver(pf, "mlx5_core", "15B3:101D", "15B3:0058")
    sysfs.set_driver(old, "mlx5_core", "15B3:1013", "15B3:0058")
    sysfs.set_driver(old_vf, "mlx5_core", "15B3:1014", "15B3:0058")
    plugin = start({**MELLANOX, "software": {"ports": 2}})
    wait_until(lambda: set(kubelet.wait_plugin().devices) == {"nic-0", "nic-1"}, plugin.log)
    for address, ids in ((pf, "15b3:101d"), (old_vf, "15b3:1014")):
        assert f"{ids} is not a function that mlx5_vdpa supports" in plugin.explain(address)


def test_attributes_are_sent_explained_and_reloaded(scene):
    sysfs, _, datapath, start = scene
    sysfs.set_driver(sysfs.vf(0, 0), "mlx5_core", "15B3:101E", "15B3:0058")
    plugin = start(MELLANOX)
    wait_until(lambda: kernel_side(datapath), plugin.log)
    told = kernel_side(datapath)
    assert told.attributes.HasField("queue_pairs") and told.attributes.queue_pairs == 0  # all
    assert told.attributes.HasField("features") and told.attributes.features == 0
    assert told.attributes.mtu == 0
    assert (told.parent.driver, told.parent.mac_when_made, told.parent.mtu_when_made) == ("mlx5_core", True, True)
    assert "to be made with all queue pairs, all features" in plugin.explain(sysfs.vf(0, 0))

    plugin.configure({**MELLANOX, "vdpa": {"queuePairs": 4, "mtu": 9000, "features": ["MAC", "MTU", "MQ", "CTRL_VQ"]}})
    wait_until(lambda: kernel_side(datapath).attributes.queue_pairs == 4, plugin.log)
    assert kernel_side(datapath).attributes.mtu == 9000
    assert kernel_side(datapath).attributes.features == 1 << 5 | 1 << 3 | 1 << 22 | 1 << 17
    explained = plugin.explain(sysfs.vf(0, 0))
    assert "to be made with 4 queue pairs, mtu 9000, features MTU, MAC, CTRL_VQ, MQ" in explained

    sets = len(datapath.sets)
    plugin.config.write_text("resources:\n- name: nic\n  devices: [{vendors: ['15b3']}]\n  provision: vdpa\n"
                             "  vdpa: {features: [MAC, RXHASH]}\n")
    plugin.wait_log("config.yaml:5:26: features has 'RXHASH'; expected a feature as `vdpa mgmtdev show` names it")
    assert len(datapath.sets) == sets
    done = subprocess.run([PROGRAM, "--validate", "--config", plugin.config], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "5:26: features has 'RXHASH'" in done.stdout + done.stderr


def test_octeon_is_refused_behind_a_socket_and_offered_as_a_netdev(scene):
    sysfs, kubelet, datapath, start = scene
    vf = sysfs.vf(0, 0)
    sysfs.set_driver(vf, "octep_vdpa", "177D:B903", "177D:B903")
    octeon = {"name": "nic", "devices": [{"vendors": ["177d"]}], "provision": "vdpa"}
    plugin = start({**octeon, "software": {"ports": 1}})
    wait_until(lambda: set(kubelet.wait_plugin().devices) == {"nic-0"}, plugin.log)
    assert "its driver octep_vdpa ignores the kicks of a socket's queues" in plugin.explain(vf)
    plugin.configure({**octeon, "attach": "virtio-vdpa"})
    wait_until(lambda: set(kubelet.wait_plugin().devices) == {vf}, plugin.log)
    wait_until(lambda: (told := kernel_side(datapath)) and told.parent.driver == "octep_vdpa", plugin.log)
