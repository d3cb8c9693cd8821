#!/usr/bin/python3
"""The test machine: a QEMU guest under emulation whose NICs have SR-IOV, built by setup.sh.

    0000:41:00.0  virtio-net, 4 VFs, on NUMA node 1; VF 0 is wired to VF 1, VF 2 to VF 3, which have two queue pairs, the PF
                  to 0000:02:00.0
    0000:01:00.0  igb, 7 VFs, wired to nothing
    0000:02:00.0  virtio-net

The guest sees the host's files (not /run and /dev, which are its own) and may write to all of them without the host
noticing; Guest.share is /share in the guest and shared, and has testnic.ko. One boot, about 15 s, serves many tests:
Guest.run and Guest.start. By hand: vm.py COMMAND boots, runs the command and powers off; without one it reads commands from
standard input.
"""

import collections
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
MULTIQUEUE = ("vf3", "vf4")   # VFs 2 and 3: two queue pairs, of which vp-vdpa sees one and the control queue
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "vdpa" / "vm"

Result = collections.namedtuple("Result", "code output")   # code is None after a missed deadline


class GuestError(Exception):
    pass


class Guest:
    """Boots at once; close() powers off. Commands of tests run in bash in the guest, as root."""

    def __init__(self, memory=1024, tap=None, boot_timeout=180, disk=None):
        """memory in MiB. tap is a link of the host's, to which a NIC at 0000:00:10.0 then connects the guest. disk is a file of
        the host's, the guest's disk at 0000:00:12.0, which outlives it."""
        subprocess.run([HERE / "setup.sh", CACHE], check=True, stdout=subprocess.DEVNULL)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="vdpa-vm-", dir="/tmp"))
        self.share = self.directory / "share"
        self.share.mkdir()
        shutil.copy(CACHE / "testnic.ko", self.share)
        self._answers = {}
        self._changed = threading.Condition()
        self._ended = False
        self._numbers = itertools.count(1)
        self._connection = None
        self._ends = {}   # sockets: of the wires between NICs, by name
        arguments = self._in_network(tap, self._arguments(memory, tap, disk))
        with open(self.directory / "console", "wb") as console:
            self._qemu = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                                          start_new_session=True, pass_fds=[end.fileno() for end in self._ends.values()])
        for end in self._ends.values():
            end.close()
        try:
            self._connection = self._connect(time.monotonic() + 10)
            threading.Thread(target=self._read, daemon=True).start()
            self._wait_answer(0, boot_timeout)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def console(self):
        """The output of the guest's kernel and of QEMU."""
        return (self.directory / "console").read_text(errors="replace")

    def run(self, command, timeout=60):
        """Runs it to its end; returns stdout and stderr together, the last 4 MiB of them."""
        answer = self._ask({"do": "run", "command": command, "timeout": timeout}, timeout + 30)
        return Result(answer["code"], answer["output"])

    def check(self, command, timeout=60):
        """Runs it and returns its output; it must succeed."""
        result = self.run(command, timeout)
        if result.code != 0:
            how = f"not over after {timeout} s" if result.code is None else f"exit status {result.code}"
            raise AssertionError(f"in the guest: {command}: {how}\n{result.output}")
        return result.output

    def start(self, command, name="program"):
        """Starts a program (not a list of commands) in the background; the name is for its log."""
        log = f"{name}-{next(self._numbers)}.log"
        pid = self._ask({"do": "start", "command": command, "log": f"/share/{log}"}, 30)["pid"]
        return Background(self, name, pid, self.share / log)

    def cut_power(self):
        """Kills it at once, whatever it is doing."""
        self._qemu.kill()
        self._qemu.wait()
        self.close()

    def close(self):
        """Powers off: QEMU ends when the guest's agent finds the host gone. After 20 s it is killed."""
        if self._connection:
            try:
                self._connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass   # QEMU has ended
            self._connection.close()
        try:
            self._qemu.wait(20 if self._connection else 0)
        except subprocess.TimeoutExpired:
            self._qemu.kill()
            self._qemu.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- the agent

    def _connect(self, deadline):
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.directory / "agent"))
                return connection
            except OSError as e:
                connection.close()
                if self._qemu.poll() is not None or time.monotonic() > deadline:
                    raise GuestError(f"QEMU did not start: {self.console()}") from e
                time.sleep(0.02)

    def _read(self):
        received = b""
        while True:
            try:
                data = self._connection.recv(65536)
            except OSError:
                data = b""
            *lines, received = (received + data).split(b"\n")
            with self._changed:
                for line in lines:
                    answer = json.loads(line)
                    self._answers[answer["id"]] = answer
                self._ended = not data
                self._changed.notify_all()
            if not data:
                return

    def _wait_answer(self, number, timeout):
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._answers or self._ended, timeout):
                raise GuestError(f"the guest did not answer within {timeout} s; its console:\n{self.console()[-4000:]}")
            if number not in self._answers:
                raise GuestError(f"the guest ended; its console:\n{self.console()[-4000:]}")
            return self._answers.pop(number)

    def _ask(self, request, timeout):
        number = next(self._numbers)
        try:
            self._connection.sendall(json.dumps(request | {"id": number}).encode() + b"\n")
        except OSError as e:
            raise GuestError(f"the guest has ended; its console:\n{self.console()[-4000:]}") from e
        answer = self._wait_answer(number, timeout)
        if "error" in answer:
            raise GuestError(f"the guest's agent: {request}: {answer['error']}")
        return answer

    # --- QEMU

    @staticmethod
    def _in_network(tap, qemu):
        """Without a link of the host's, QEMU has a network namespace of its own, with a multi-queue wire."""
        if tap:
            return qemu
        wire = "ip link add wire type bridge && ip link set wire up"
        for end in MULTIQUEUE:
            wire += f" && ip tuntap add {end} mode tap multi_queue && ip link set {end} master wire up"
        return ["unshare", "--net", "sh", "-c", f'{wire} && exec "$@"', "sh", *qemu]

    def _arguments(self, memory, tap, disk):
        libraries, version = CACHE / "qemu/usr/lib/x86_64-linux-gnu", (CACHE / "kernel/version").read_text().strip()
        firmware = [CACHE / "qemu/usr" / folder for folder in ("share/qemu", "share/seabios", "lib/ipxe/qemu")]
        return [
            libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, CACHE / "qemu/usr/bin/qemu-system-x86_64",
            *[a for folder in firmware for a in ("-L", folder)],
            "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(memory),
            "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", CACHE / f"kernel/boot/vmlinuz-{version}", "-initrd", CACHE / "initramfs.gz",
            "-append", f"console=ttyS0 quiet panic=-1 mitigations=off intel_iommu=on iommu=pt vm.agent={HERE / 'agent.py'}",
            *self._shared_folders(), *self._hardware(memory, not tap),
            "-device", "virtio-serial-pci,bus=pcie.0,addr=0x11",
            "-chardev", f"socket,id=agent,path={self.directory / 'agent'},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=vdpa.agent",
            *(["-drive", f"file={disk},format=raw,if=none,id=disk", "-device",
               "virtio-blk-pci,bus=pcie.0,addr=0x12,drive=disk"] if disk else []),
            *(["-netdev", f"tap,id=tap,ifname={tap},script=no,downscript=no",
               "-device", "virtio-net-pci,bus=pcie.0,addr=0x10,netdev=tap,mac=52:54:00:00:09:01"] if tap else [])]

    def _shared_folders(self):
        readonly = "security_model=none,readonly=on"
        return ["-virtfs", f"local,path=/,mount_tag=host,multidevs=remap,{readonly}",
                "-virtfs", f"local,path={CACHE / 'kernel/lib/modules'},mount_tag=modules,{readonly}",
                "-virtfs", f"local,path={self.share},mount_tag=share,security_model=none"]

    def _wire(self, end, other):
        """One end of a wire between two NICs: of a pair of sockets. Not hub ports, which a full receive ring stalls for ever;
        not datagram sockets with names, at which QEMU's main loop spins while one is full; not streams, at which it blocks."""
        if end not in self._ends:
            self._ends[end], self._ends[other] = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return ["-netdev", f"dgram,id={end},local.type=fd,local.str={self._ends[end].fileno()}"]

    def _hardware(self, memory, multiqueue):
        virtio = "virtio-net-pci,disable-legacy=on,iommu_platform=on,ats=on,packed=on"
        arguments = [
            "-device", "intel-iommu,intremap=off,device-iotlb=on,snoop-control=on,aw-bits=48",
            "-object", f"memory-backend-ram,id=memory0,size={memory // 2}M",
            "-object", f"memory-backend-ram,id=memory1,size={memory // 2}M",
            "-numa", "node,nodeid=0,memdev=memory0,cpus=0", "-numa", "node,nodeid=1,memdev=memory1,cpus=1",
            # QEMU 11.1.3 crashes unless igb comes before the group of virtio functions.
            "-device", "pcie-root-port,id=port2,chassis=2,slot=2,bus=pcie.0",
            "-netdev", "hubport,id=igb,hubid=7", "-device", "igb,bus=port2,netdev=igb,mac=52:54:00:00:02:00",
            "-device", "pcie-root-port,id=port1,chassis=1,slot=1,bus=pcie.0", *self._wire("plain", "pf"),
            "-device", f"{virtio},bus=port1,netdev=plain,mac=52:54:00:00:01:00",
            "-device", "pxb-pcie,id=numa1,bus_nr=0x40,numa_node=1,bus=pcie.0",
            "-device", "pcie-root-port,id=port3,chassis=3,slot=3,bus=numa1"]
        for function in (4, 3, 2, 1):   # the PF comes last
            name, queues = f"vf{function}", ""
            if multiqueue and name in MULTIQUEUE:
                arguments += ["-netdev", f"tap,id={name},ifname={name},script=no,downscript=no,queues=2"]
                queues = ",mq=on"
            else:
                arguments += self._wire(name, f"vf{(function - 1 ^ 1) + 1}")
            arguments += ["-device", f"{virtio},bus=port3,addr=0x0.0x{function},netdev={name},sriov-pf=pf,"
                                     f"mac=52:54:00:00:03:0{function}{queues}"]
        return arguments + self._wire("pf", "plain") + [
            "-device", f"{virtio},id=pf,bus=port3,addr=0x0.0x0,netdev=pf,mac=52:54:00:00:03:00"]


class Background:
    """A program in the guest."""

    def __init__(self, guest, name, pid, log):
        self._guest, self.name, self.pid, self._log = guest, name, pid, log

    def log(self):
        return self._log.read_text(errors="replace")

    def wait(self, timeout):
        """Its exit status (a signal's is negative); None if it still runs after this many seconds."""
        return self._guest._ask({"do": "wait", "pid": self.pid, "timeout": timeout}, timeout + 30)["code"]

    def running(self):
        return self.wait(0) is None

    def signal(self, number):
        """Sends a signal to the program and the processes it started."""
        self._guest._ask({"do": "kill", "pid": self.pid, "signal": int(number)}, 30)

    def stop(self, timeout=10):
        """Terminates it and returns its exit status; kills it if it doesn't end."""
        self.signal(signal.SIGTERM)
        code = self.wait(timeout)
        if code is None:
            self.signal(signal.SIGKILL)
            code = self.wait(timeout)
        return code


def main():
    with Guest() as guest:
        if len(sys.argv) > 1:
            result = guest.run(" ".join(sys.argv[1:]), 600)
            print(result.output, end="")
            return 124 if result.code is None else result.code
        while True:
            print("guest# ", end="", flush=True)
            line = sys.stdin.readline()
            if not line:
                return 0
            print(guest.run(line, 600).output, end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
