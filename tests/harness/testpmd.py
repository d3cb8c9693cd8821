"""dpdk-testpmd as a vhost-user application (virtio-user), and as an engine (net_vhost: the real rte_vhost)."""

import itertools
import re

import pytest

from support import Program, wait_until

_numbers = itertools.count()
RINGS = pytest.mark.parametrize("ring", ["split", "packed"])


class Testpmd(Program):
    """dpdk-testpmd on ordinary memory or huge pages, without hardware. It prints its counters every second."""

    __test__ = False  # not a test, despite its name

    def __init__(self, name, directory, vdevs, mode, queues=1, core=0, memory=128, arguments=(), eal=(), huge=False, **popen):
        vdev_arguments = [argument for vdev in vdevs for argument in ("--vdev", vdev)]
        super().__init__(name, [
            "dpdk-testpmd", "--lcores", f"0@{core},1@{core}", "--no-pci", *([] if huge else ["--no-huge"]),
            "-m", memory, "--no-telemetry",
            f"--file-prefix=test{next(_numbers)}-{directory.name}", *vdev_arguments, *eal, "--",
            f"--forward-mode={mode}", "--auto-start", "--stats-period", "1", "--total-num-mbufs=4096",
            f"--rxq={queues}", f"--txq={queues}", "--display-xstats",
            ",".join(f"{way}_q{q}_good_packets" for way in ("rx", "tx") for q in range(queues)),
            *arguments], directory, stdin=-3, **popen)

    def counter(self, name, port=0):
        """The last printed value of RX-packets, TX-packets or an extended statistic; 0 before the first."""
        blocks = re.split(r"NIC (?:extended )?statistics for port ", self.log())
        values = [int(match.group(1)) for block in blocks if block.startswith(str(port))
                  for match in re.finditer(rf"{name}:? +(\d+)", block)]
        return values[-1] if values else 0

    def received(self, port=0):
        return self.counter("RX-packets", port)

    def wait_received(self, count, what, timeout=180):
        """Waits until `count` more packets have been received than now. An emulated application on a busy machine takes a
        minute to start."""
        before = self.received()
        wait_until(lambda: self.received() >= before + count,
                   lambda: f"{count} packets {what} ({self.received() - before} came):\n{self.log()[-3000:]}", timeout)


def application(directory, socket, name="application", queues=1, core=0, options="", mode="flowgen", **other):
    """A DPDK application on a vhost-user socket that sends frames and counts those that come back."""
    vdev = f"net_virtio_user0,path={socket},mac=02:00:00:00:00:01,queues={queues}{options}"
    return Testpmd(name, directory, [vdev], mode, queues, core, **other)


def engine(directory, socket, name="engine", queues=1, core=1, options=""):
    """An engine that sends every packet back."""
    socket.unlink(missing_ok=True)  # rte_vhost doesn't replace the socket file of a killed process
    return Testpmd(name, directory, [f"net_vhost0,iface={socket},queues={queues}{options}"], "io", queues, core)


def option(ring):
    """An application's options for this kind of rings, one of RINGS."""
    return ",packed_vq=1" if ring == "packed" else ""


def device_application(directory, socket, name, mode, core=0, options="", user=65534, **other):
    """An unprivileged application for a device, on the machine's huge pages, since its pages must not move."""
    directory.chmod(0o777)
    return Testpmd(name, directory, [f"net_virtio_user0,path={socket}{options}"], mode, core=core, memory=64,
                   eal=["--iova-mode=va", "--in-memory", "--single-file-segments"], huge=True,
                   user=user, group=user, extra_groups=[], **other)
