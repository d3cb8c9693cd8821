"""Runs the CNI plugin by exec, as a runtime does, and compares it with Debian's bridge and host-device: one call and sixteen at
once, with and without host-local, and with cold page caches (except for the dynamic linker, which only the peers use).

The measurement runs in a network namespace of its own, which stands for the node's.
"""

import contextlib
import ctypes
import json
import mmap
import os
import pathlib
import re
import select
import shutil
import statistics
import subprocess
import time

from measure import Figures, blocks, finish, header, install, node_directories, private_kib, row

import datapath
from support import wait_until

PLUGINS = pathlib.Path("/usr/lib/cni")
BLOCKS = blocks(5)
ROUNDS = {"warm": 30, "cold": 10, "16 at once": 6}  # in a block, of all contenders in turn
PARALLEL = 16
COMMANDS = ("VERSION", "ADD", "CHECK", "DEL")
CLONE_NEWNET = 0x40000000


class Attachment:
    """One interface of one container, with the plugin and its configuration; `start` and `ended` make up one call."""

    def __init__(self, directory, name, program, netns, config):
        self.program, self.config = str(program), config
        self.input, self.output = directory / f"{name}.json", directory / f"{name}.out"
        self.environment = {"CNI_CONTAINERID": f"bench-{name}", "CNI_IFNAME": "net1", "CNI_NETNS": netns,
                            "CNI_PATH": os.path.dirname(program), "PATH": os.environ["PATH"],
                            "VDPA_CNI_ROOTS": os.path.dirname(config.get("datapathSocket", ""))}
        self.configure()

    def configure(self, **more):
        self.input.write_text(json.dumps({**self.config, **more}))

    def start(self, command):
        files = [(os.POSIX_SPAWN_OPEN, 0, str(self.input), os.O_RDONLY, 0),
                 (os.POSIX_SPAWN_OPEN, 1, str(self.output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                 (os.POSIX_SPAWN_OPEN, 2, f"{self.output}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
        self.command, self.started = command, time.perf_counter()
        self.pid = os.posix_spawn(self.program, [self.program], {**self.environment, "CNI_COMMAND": command},
                                  file_actions=files)

    def ended(self):
        """Returns how many milliseconds the call took; waits for its end if necessary."""
        status = os.waitpid(self.pid, 0)[1]
        took = (time.perf_counter() - self.started) * 1000
        if status != 0:
            raise SystemExit(f"{self.program} {self.command} failed: {self.output.read_text()}")
        if self.command == "ADD":  # what a runtime passes to the other commands
            self.configure(prevResult=json.loads(self.output.read_text()))
        return took


def resident(file):
    """Whether any page of the file is in memory."""
    size = os.fstat(file.fileno()).st_size
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE) as mapping:  # writable, so that ctypes finds its address
        view = ctypes.c_char.from_buffer(mapping)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), pages)
        del view
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return any(page[0] & 1 for page in zip(pages.raw))


class Contender:
    """A plugin with as many attachments as are made at once, its programs, and the libraries of all contenders."""

    def __init__(self, name, attachments, programs, libraries, commands=COMMANDS):
        self.name, self.attachments, self.programs, self.commands = name, attachments, programs, commands
        self.libraries = libraries

    def forget(self):
        """Has the kernel drop the cached pages of the programs and their libraries."""
        for attachment in self.attachments:
            attachment.environment["LD_LIBRARY_PATH"] = str(self.libraries)
        for path in [*self.programs, *self.libraries.iterdir()]:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if resident(file):
                    raise SystemExit(f"{path} stays in memory, so that a cold start is not possible")

    def alone(self, command):
        self.attachments[0].start(command)
        return [self.attachments[0].ended()]

    def together(self, command):
        """Makes all attachments at once; returns how long each took."""
        running, times = {}, []
        poll = select.poll()
        for attachment in self.attachments:
            attachment.start(command)
            pidfd = os.pidfd_open(attachment.pid)
            running[pidfd] = attachment
            poll.register(pidfd, select.POLLIN)
        while running:
            for pidfd, _ in poll.poll():
                times.append(running.pop(pidfd).ended())
                poll.unregister(pidfd)
                os.close(pidfd)
        return times


class Percentiles(Figures):
    """The medians of the blocks, and the 99th percentile of all calls."""

    def __init__(self, blocks, unit="ms", digits=2):
        super().__init__([sorted(block)[len(block) // 2] for block in blocks], unit, digits)
        calls = sorted(call for block in blocks for call in block)
        self.late = calls[len(calls) * 99 // 100]

    def __str__(self):
        return f"{super().__str__()}, p99 {self.late:.{self.digits}f}"


def measure(how, contenders):
    """Runs all contenders in turn, block by block; returns the times by contender and command, and the attachments a second."""
    times = {(c, command): [[] for _ in range(BLOCKS)] for c in contenders for command in (*COMMANDS, "ADD+DEL")}
    rates = {c: [[] for _ in range(BLOCKS)] for c in contenders}
    for block in range(BLOCKS):
        for number in range(ROUNDS[how]):
            first = number % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                took = {}
                for command in contender.commands:
                    if how == "cold":
                        contender.forget()
                    started = time.perf_counter()
                    took[command] = (contender.together if how == "16 at once" else contender.alone)(command)
                    if command == "ADD":
                        rates[contender][block].append(len(took["ADD"]) / (time.perf_counter() - started))
                    times[contender, command][block] += took[command]
                times[contender, "ADD+DEL"][block] += [sum(pair) for pair in zip(took["ADD"], took["DEL"])]
    return times, rates


def show(how, ipam, contenders):
    ours, *peers = contenders
    times, rates = measure(how, contenders)
    what = f"{how}{', host-local' if ipam else ''}"
    for peer in peers:
        for command in (*peer.commands, "ADD+DEL"):
            target = {"ADD": "<= 1", "ADD+DEL": "" if ipam else "<= 0.5"}.get(command, "") if (
                how == "warm" and peer.name == "bridge") else ""
            row(f"{command}, {what}: {peer.name}", Percentiles(times[ours, command]), Percentiles(times[peer, command]),
                target)
        if how == "16 at once":
            row(f"attachments a second, {what}: {peer.name}",
                *(Figures(map(statistics.median, rates[c]), "/s", 0) for c in (ours, peer)),
                "> 1" if peer.name == "bridge" else "")


@contextlib.contextmanager
def plugins(directory, programs, daemon, ipam):
    """Ours comes first. Each attachment has a container with a network namespace of its own."""
    local = {"ipam": {"type": "host-local", "dataDir": str(directory / "leases"),
                      "ranges": [[{"subnet": "192.0.2.0/24"}]]}} if ipam else {}
    configs = {
        "vdpa": lambda n: {"deviceID": f"nic-{n}", "datapathSocket": str(daemon.run_dir / "datapath.sock"), **local},
        "bridge": lambda n: {"bridge": "vdpabench0", **(local or {"ipam": {}})},
        "host-device": lambda n: {"device": f"vdpabench-{n}", **(local or {"ipam": {}})}}
    with contextlib.ExitStack() as stack:
        # With a fixed address: without one, its address changes with its ports, and bridge's CHECK fails.
        subprocess.run(["ip", "link", "add", "vdpabench0", "address", "02:00:00:00:00:fe", "type", "bridge"], check=True)
        stack.callback(subprocess.run, ["ip", "link", "del", "vdpabench0"], check=True)
        for number in range(PARALLEL):
            link = f"vdpabench-{number}"
            subprocess.run(["ip", "link", "add", link, "type", "veth", "peer", "name", f"vdpapeer-{number}"], check=True)
            stack.callback(subprocess.run, ["ip", "link", "del", link], check=True)
        contenders = []
        for name, config in configs.items():
            program = programs / name
            attachments = [
                Attachment(directory, f"{name}-{n}", program, stack.enter_context(datapath.network_namespace()),
                           {"cniVersion": "1.0.0", "name": f"{name}-bench", "type": name, **config(n)})
                for n in range(PARALLEL)]
            # Without IPAM, bridge's CHECK fails.
            commands = tuple(c for c in COMMANDS if c != "CHECK" or name != "bridge" or ipam)
            contenders.append(Contender(name, attachments, [program, *([programs / "host-local"] if ipam else [])],
                                        programs / "lib", commands))
        yield contenders


def install_all(directory):
    """Copies ours, the peers and their libraries, since no other process runs a private copy. Flushes all of them to the disk,
    else the kernel would not drop their pages."""
    programs = install(directory)
    (programs / "lib").mkdir()
    for name in ("bridge", "host-device", "host-local"):
        shutil.copy(PLUGINS / name, programs)
        linked = subprocess.run(["ldd", PLUGINS / name], check=True, capture_output=True, text=True).stdout
        for library in re.findall(r"=> (/\S+)", linked):
            shutil.copy(library, programs / "lib")
    os.sync()
    return programs


def memory(directory, programs, daemon):
    """The memory of an ADD at its peak: while it waits for its IPAM plugin, when only the answer is missing."""
    waiting = directory / "waiting"
    waiting.mkdir()
    plugin = waiting / "waits"
    plugin.write_text("#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\n"
                      f"echo >> {waiting}/here; while [ ! -e {waiting}/go ]; do sleep 0.01; done\n"
                      "echo '{\"cniVersion\": \"1.0.0\", \"ips\": [{\"address\": \"192.0.2.9/24\"}]}'\n")
    plugin.chmod(0o755)
    figures = []
    with plugins(directory, programs, daemon, ipam=False) as (ours, bridge, _):
        for contender in (ours, bridge):
            attachment, found = contender.attachments[0], []
            attachment.config["ipam"] = {"type": "waits"}
            attachment.environment["CNI_PATH"] = str(waiting)
            attachment.configure()
            for _ in range(BLOCKS):
                (waiting / "go").unlink(missing_ok=True)
                (waiting / "here").unlink(missing_ok=True)
                attachment.start("ADD")
                wait_until((waiting / "here").exists, "the IPAM plugin's call")
                found.append(private_kib(attachment.pid) / 1024)
                (waiting / "go").touch()
                attachment.ended()
                attachment.start("DEL")
                attachment.ended()
            figures.append(Figures(found, "MiB"))
    row("private memory of an ADD: bridge", *figures)


def main():
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise SystemExit(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}; run as root")
    with contextlib.ExitStack() as stack:
        directory, run_dir = stack.enter_context(node_directories())
        programs = install_all(directory)
        daemon = stack.enter_context(datapath.Datapath(directory, run_dir=run_dir, log_level="info",
                                                       program=programs / "vdpa-datapath", worker_dirs=str(programs)))
        daemon.wait_serving().offer(PARALLEL).wait_healthy()

        header("vdpa (CNI)")
        row("size of the binary", Figures([(programs / "vdpa").stat().st_size / 1e6], "MB"), target="<= 10 MB")
        memory(directory, programs, daemon)
        for ipam in (False, True):
            for how in ROUNDS:
                with plugins(directory, programs, daemon, ipam) as contenders:
                    show(how, ipam, contenders)


main()
finish()
