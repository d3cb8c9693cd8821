"""Two pods between which a fixed number of packets goes back and forth, so that every single lost one shows.

Both run testpmd, controlled through a pipe. `near` starts with a number of packets and returns those that it receives; `far`
returns everything. A ring never fills up, so every sent packet is received by the other pod, or lost on the way."""

from cluster import pod
from support import wait_until
from testpmd import COMMAND, Application

PACKETS = 128  # in flight at any time: less than half of the smallest ring


def endpoint(name, core, **more):
    return pod(name, COMMAND.format(core=core), **more)


class Exchange:
    def __init__(self, cluster, node="node1", networks="quiet"):
        self.cluster, self.node, self.networks = cluster, node, networks
        self.applications = {}
        self.launch("near", "far")

    def launch(self, *names):
        """Replaces pods of these names."""
        cores = {"near": 0, "far": 1}
        self.cluster.apply(*[endpoint(name, cores[name], node=self.node, networks=self.networks) for name in names])
        for name in names:
            self.cluster.wait_running(name)
            self.applications[name] = Application(lambda line, name=name: self.cluster.exec(name, "sh", "-c", line))
        macs = {a["pod"]: a["mac"] for a in self.attachments()}
        self.applications["near"].tell(f"set eth-peer 0 {macs['far']}")
        if "far" in names:
            self.applications["far"].tell("set fwd macswap", "start")

    def attachments(self):
        return [a for a in self.cluster.vdpactl(self.node, "attachments") if a["attached"]]

    def states(self):
        return {a["pod"]: a["state"] for a in self.attachments()}

    def start(self):
        self.applications["near"].tell("stop", "set fwd macswap", f"start tx_first {PACKETS // 32}")

    def count(self):
        """The packets that `near` has received, while the exchange runs."""
        return self.applications["near"].counters()[0]

    def wait_passing(self, packets=1000, timeout=60):
        before = self.count()
        wait_until(lambda: self.count() >= before + packets,
                   lambda: f"{packets} more packets: {before} before, {self.count()} now", timeout, 0.2)

    def settle(self):
        """Ends the exchange and returns how many packets there were in all, and how many of them were lost on the way to `far`
        and on the way back. Waits for packets in flight first."""
        self.applications["near"].tell("stop", "set fwd rxonly", "start")
        counters = []

        def still():
            counters.append((self.applications["near"].counters(), self.applications["far"].counters()))
            return len(counters) > 1 and counters[-1] == counters[-2]
        wait_until(still, lambda: f"no packet in flight: {counters}", 60, 0.2)
        self.applications["near"].tell("stop")
        (received, sent), (far_received, far_sent) = counters[-1]
        return sent, sent - far_received, far_sent - received
