"""vdpa-pmd as a process, with a vDPA device that needs no card, and its control channel."""

import atexit
import functools
import json
import os
import shutil
import socket
import tempfile
import threading

from support import BUILD, Program, wait_until
from switch import Control

PROGRAM = BUILD / "deviceplugin/datapath/pmd/vdpa-pmd"
DRIVER = BUILD / "tests/system/vdpa_test_driver/libvdpa_test_driver.so"


@functools.cache
def driver():
    """The test driver's path. DPDK refuses a driver below a folder that everyone may write to, such as a clone in /tmp."""
    directory = tempfile.mkdtemp(prefix="vdpa-test-driver-", dir="/run")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return shutil.copy(DRIVER, directory)


class Pmd(Control, Program):
    """`socket` is the engine socket for a worker; `options` are the device's: fail_conf=1, crash_after=1000."""

    def __init__(self, directory, vhost, *arguments, queues=1, options="", name="pmd"):
        Control.__init__(self, directory / f"{name}.control")
        self.socket = vhost
        Program.__init__(self, name, [
            PROGRAM, "--device", "0000:65:00.2", "--vdev", f"vdpa_test0,queues={queues}{options}", "--load", driver(),
            "--socket", self.socket, "--control", self.path, "--log-level", "debug", *arguments], directory)

    def hello(self):
        return self.call("hello")

    def wait_up(self):
        self.wait_log("serving")
        return self

    def wait_state(self, **expected):
        wait_until(lambda: expected.items() <= self.hello().items(),
                   lambda: f"{expected}; is {self.hello()}:\n{self.log()}", 20)

    def packets(self, queue):
        return next(q["packets"] for q in self.call("stats")["queues"] if q["queue"] == queue)

    def __exit__(self, *_):
        self.close()
        super().__exit__()


class Events:
    """Reads the events of a control channel from now on."""

    def __init__(self, path):
        self.seen = []
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(path))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self._connection.makefile() as lines:
            for line in lines:
                self.seen.append(json.loads(line))

    def wait(self, **expected):
        return wait_until(lambda: next((e for e in self.seen if expected.items() <= e.items()), None),
                          lambda: f"an event with {expected} among {self.seen}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._connection.close()


def programs(directory, name="programs", program=PROGRAM):
    """Returns a folder with a vdpa-pmd that starts the real one, but with the test's device, which gets the devargs, in place
    of its function."""
    folder = directory / name
    folder.mkdir()
    wrapper = folder / "vdpa-pmd"
    wrapper.write_text(f"""#!/bin/bash
for word; do
  case $word in
    --pci=*|--driver=*) ;;
    --devargs=*) devargs=",${{word#*=}}" ;;
    *) words+=("$word") ;;
  esac
done
exec {program} "${{words[@]}}" --vdev="vdpa_test0,queues=2$devargs" --load={driver()}
""")
    wrapper.chmod(0o755)
    return folder


def sysfs(directory, address="0000:65:00.2", driver=None, vendor="0x1af4", group=True):
    """A generated /sys with one PCI function: the files that vdpa-datapath checks before it starts vdpa-pmd. Real machines have
    the same files; none was copied."""
    function = directory / "sys/bus/pci/devices" / address
    function.mkdir(parents=True)
    (function / "vendor").write_text(vendor + "\n")
    (function / "device").write_text("0x1041\n")
    if driver:
        (function / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
    if group:
        (directory / "sys/kernel/iommu_groups/7").mkdir(parents=True)
        (function / "iommu_group").symlink_to("../../../../kernel/iommu_groups/7")
    return directory / "sys"


def dpdk_files():
    """The files that DPDK programs leave in the host."""
    return {os.path.join(folder, name) for folder in ("/run/dpdk", "/dev/hugepages", "/dev/shm", "/tmp")
            if os.path.isdir(folder) for name in os.listdir(folder) if folder != "/tmp" or "rte" in name}
