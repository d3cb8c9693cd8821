"""The resources of an idle node: all programs together, with pods attached and connected, but no packets."""

import contextlib
import time

import pytest
from datapath import Datapath, owner, settings
from device_plugin import DevicePlugin, software, write_config
from kubelet import Kubelet
from pod import Pod, exchange, mac
from processes import cpu_seconds
from support import SANITIZED, wait_until

SECONDS = 10
SHARE = 0.03 if SANITIZED else 0.01


@pytest.mark.packets
@pytest.mark.release
def test_an_idle_node_takes_less_than_a_hundredth_of_a_core(directory):
    config = write_config(directory, *software(nic=8)["resources"])
    kubelet = Kubelet(directory).start()
    try:
        with Datapath(directory, log_level="info") as datapath:
            with DevicePlugin(directory, config, log_level="info") as plugin:
                kubelet.wait_plugin()
                for number in range(4):
                    kubelet.pods["default", f"pod-{number}"] = "vdpa.io/nic", [f"nic-{number}"]
                    datapath.wait_serving().attach(owner(f"c{number}", pod=f"pod-{number}"), f"nic-{number}",
                                                   settings(mac=mac(number)))
                with Pod(datapath.socket("nic-0"), mac(0)) as one, Pod(datapath.socket("nic-1"), mac(1)) as other:
                    with contextlib.closing(datapath.switch_control()) as control:
                        control.wait_connected("nic-0")
                        control.wait_connected("nic-1")
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
