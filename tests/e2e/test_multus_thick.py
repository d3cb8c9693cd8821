"""The thick Multus, on node2: a daemon that runs the plugins in a chroot, behind a shim that logs little."""

import pytest

from cluster import check_two_attachments, network, pod, taking_part, wait_event
from support import wait_until


@pytest.fixture
def thick(cluster):
    with taking_part(cluster, "node2"):
        yield cluster


def attached(cluster):
    return [a["pod"] for a in cluster.vdpactl("node2", "attachments") if a["attached"]]


def test_attachments_with_the_thick_multus(thick):
    thick.apply(network("fast", ipam={"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24"}]]}))
    try:
        thick.apply(pod("behind-shim", networks="fast,fast", devices=2, node="node2"))
        thick.wait_running("behind-shim")
        check_two_attachments(thick, "behind-shim")
        assert {ip for s in thick.network_status("behind-shim") if s["name"].endswith("/fast") for ip in s["ips"]} == {
            "192.0.2.2", "192.0.2.3"}
        assert attached(thick) == ["behind-shim"] * 2
        thick.delete("behind-shim")
        wait_until(lambda: attached(thick) == [], lambda: f"no attachment: {attached(thick)}", 60, 0.2)
        thick.apply(network("badvlan", vlan=5000), pod("badvlan", networks="badvlan", node="node2"))
        wait_event(thick, "badvlan", "vlan", "4094")
        thick.delete("badvlan", force=True)
    finally:
        thick.apply(network())
