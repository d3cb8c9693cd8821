"""Two pods between which a fixed number of packets goes to and fro, so that every single lost one shows.

Both run testpmd and are told what to do through a pipe. `near` starts so many packets and returns what comes to it, `far`
returns everything: a ring never fills up, and whatever was sent is received on the other side, or was lost on the way."""

from cluster import pod
from support import wait_until

PACKETS = 128  # under way at any time: less than half of the smallest ring
COMMAND = ("busybox mkfifo /tmp/in; exec 3<>/tmp/in; exec dpdk-testpmd --lcores 0@{core},1@{core} --no-pci --no-huge -m 128 "
           "--no-telemetry $(cat /run/vdpa/*/eal-args) -- --total-num-mbufs=4096 --interactive <&3 >/tmp/out 2>&1")
# What is printed stays in testpmd's buffer until so many blocks of counters are behind it.
FLUSH = 6


def endpoint(name, core, **more):
    return pod(name, COMMAND.format(core=core), **more)


class Exchange:
    def __init__(self, cluster, node="node1", networks="quiet"):
        self.cluster, self.node, self.networks = cluster, node, networks
        self._shown = {}
        self.launch("near", "far")

    def launch(self, *names):
        """Pods of these names, in the place of what had them before."""
        cores = {"near": 0, "far": 1}
        self.cluster.apply(*[endpoint(name, cores[name], node=self.node, networks=self.networks) for name in names])
        for name in names:
            self._shown[name] = 0
            self.cluster.wait_running(name)
            wait_until(lambda name=name: "testpmd>" in self._out(name), lambda name=name: self._out(name), 60, 0.2)
        macs = {a["pod"]: a["mac"] for a in self.attachments()}
        self._tell("near", f"set eth-peer 0 {macs['far']}")
        if "far" in names:
            self._tell("far", "set fwd macswap", "start")

    def attachments(self):
        return [a for a in self.cluster.vdpactl(self.node, "attachments") if a["attached"]]

    def states(self):
        return {a["pod"]: a["state"] for a in self.attachments()}

    def start(self):
        self._tell("near", "stop", "set fwd macswap", f"start tx_first {PACKETS // 32}")

    def count(self):
        """Packets that `near` received, while they go to and fro."""
        return self._counters("near")[0]

    def wait_passing(self, packets=1000, timeout=60):
        before = self.count()
        wait_until(lambda: self.count() >= before + packets,
                   lambda: f"{packets} packets more: {before} before, {self.count()} now", timeout, 0.2)

    def settle(self):
        """Ends the exchange and returns how many packets there were in all, and how many of them were lost: to `far`, and
        on the way back. What is still under way arrives first."""
        self._tell("near", "stop", "set fwd rxonly", "start")
        counters = []

        def still():
            counters.append((self._counters("near"), self._counters("far")))
            return len(counters) > 1 and counters[-1] == counters[-2]
        wait_until(still, lambda: f"no packet under way: {counters}", 60, 0.2)
        self._tell("near", "stop")
        (received, sent), (far_received, far_sent) = counters[-1]
        return sent, sent - far_received, far_sent - received

    def _tell(self, name, *commands):
        lines = "".join(f"{command}\\n" for command in commands)
        self.cluster.exec(name, "sh", "-c", f"printf '{lines}' > /tmp/in")

    def _out(self, name):
        return self.cluster.exec(name, "sh", "-c", "cat /tmp/out 2> /dev/null || true")

    def _counters(self, name):
        """Packets received and sent since testpmd started, as of after this call began."""
        before = self._shown[name]

        def shown():
            self._shown[name] += FLUSH
            self._tell(name, *["show port stats all"] * FLUSH)
            blocks = self._out(name).split("NIC statistics for port 0")[1:]
            whole = [b for b in blocks if "TX-packets:" in b and "TX-bytes:" in b]
            return whole[-1] if len(whole) > before else None
        block = wait_until(shown, lambda: self._out(name)[-3000:], 30, 0.05)
        return tuple(int(block.split(f"{way}-packets:")[1].split()[0]) for way in ("RX", "TX"))
