"""What a node takes on which nobody sends: all programs together, with pods attached and connected."""

import json
import pathlib
import time

import pytest
from datapath import Datapath, owner, settings
from kubelet import Kubelet
from pod import Pod, exchange, mac
from support import BUILD, SANITIZED, Program, wait_until

PLUGIN = BUILD / "deviceplugin/vdpa-device-plugin"
SECONDS = 10
SHARE = 0.03 if SANITIZED else 0.01


def cpu_seconds(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@pytest.mark.packets
@pytest.mark.release
def test_an_idle_node_takes_less_than_a_hundredth_of_a_core(directory):
    (directory / "config.yaml").write_text(json.dumps(
        {"resources": [{"name": "nic", "backend": "software", "software": {"ports": 8}}]}))
    kubelet = Kubelet(directory).start()
    (directory / "pods.sock").symlink_to(kubelet.pod_resources)   # where Datapath looks
    try:
        with Datapath(directory, log_level="info") as datapath:
            with Program("plugin", [PLUGIN, "--config", directory / "config.yaml", "--kubelet-dir", kubelet.directory,
                                    "--pod-resources", kubelet.pod_resources, "--run-dir", datapath.run_dir, "--devinfo-dir",
                                    directory / "devinfo"], directory) as plugin:
                kubelet.wait_plugin()
                for number in range(4):
                    kubelet.held.append(("default", f"pod-{number}", "vdpa.io/nic", f"nic-{number}"))
                    datapath.wait_serving().attach(owner(f"c{number}", pod=f"pod-{number}"), f"nic-{number}",
                                                   settings(mac=mac(number)))
                with Pod(datapath.socket("nic-0"), mac(0)) as one, Pod(datapath.socket("nic-1"), mac(1)) as other:
                    exchange(one, other)
                    names = {**datapath.processes(), "vdpa-datapath": datapath.pid, "vdpa-device-plugin": plugin.pid}
                    assert len(names) == 7
                    before, began = {name: cpu_seconds(pid) for name, pid in names.items()}, time.monotonic()
                    wait_until(lambda: time.monotonic() - began >= SECONDS, "the end of the measurement", interval=1)
                    took = {name: round(cpu_seconds(pid) - before[name], 4) for name, pid in names.items()}
                    assert sum(took.values()) < SHARE * SECONDS, took
                    print(took)
    finally:
        kubelet.stop()
