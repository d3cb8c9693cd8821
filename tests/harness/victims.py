"""Two pods that exchange frames while a third attacks the switch that all share. Every frame must arrive once, whole and in
order, and the switch's process must stay the same; what it may spend is for the test to say."""

import itertools
import os

import processes
from datapath import owner
from pod import COUNT, Pod, frame, mac
from support import wait_until

SIZES = (60, 590, 1514)
DEVICES = 40   # that the node offers


class Victims:
    """The pods are on nic-0 and nic-1 of a SwitchedNode with DEVICES devices, the attackers on others."""

    def __init__(self, node):
        self.node = node
        self.pods = node.pods(2)
        self._devices = itertools.cycle(range(2, DEVICES))
        self._attached = []
        self._rounds = itertools.count()

    # --- before an attack

    def begin(self):
        """Everything that is counted begins here. A switch that a previous attack has killed must be back."""
        for number in range(2):
            self.node.control.close()
            wait_until(lambda number=number: self._connected(number), f"nic-{number} to be connected", 60)
        self.pid = self.node.datapath.switch_pid()
        for pod in self.pods:
            pod.take()
        self.sent = 0
        self._before = [self.node.control.stats(f"nic-{number}") for number in range(2)]
        return self

    def _connected(self, number):
        try:
            return self.node.control.port(f"nic-{number}")["connected"]
        except (OSError, StopIteration):
            self.node.control.close()
            return False

    def attach(self, **settings):
        """The number of a device for an attacker. It starts without a past: the previous one was detached."""
        number = next(self._devices)
        self.node.attach(number, **settings)
        self._attached.append(number)
        return number

    def attacker(self, number=None, **driver):
        """A pod on a device of its own."""
        number = self.attach() if number is None else number
        pod = self.node.stack.enter_context(Pod(self.path(number), mac(number), **driver))
        self.wait_connected(number)
        pod.number = number
        return pod

    def path(self, number):
        return self.node.datapath.socket(f"nic-{number}")

    def wait_connected(self, number):
        self.node.control.wait_connected(f"nic-{number}")

    # --- beside it

    def round(self):
        """As many frames each way as the receiver has buffers, of several lengths."""
        number = next(self._rounds)
        for sender, receiver in (self.pods, self.pods[::-1]):
            receiver.take()
            wanted = [frame(receiver.mac, sender.mac, b"%d/%d " % (number, n) + os.urandom(40), size=SIZES[n % len(SIZES)])
                      for n in range(COUNT)]
            for data in wanted:
                sender.offer(data)
            came, own = [], bytes.fromhex(sender.mac.replace(":", ""))

            def done(receiver=receiver, came=came, own=own):
                came += [data for data in receiver.take() if data[6:12] == own]
                return len(came) >= COUNT
            wait_until(done, lambda came=came: f"round {number}: {len(came)} of {COUNT} frames came", 20, 0.0002)
            assert came == wanted, f"round {number}: frames were changed"
            wait_until(sender.idle, "the switch to give the frames back", 20, 0.0002)
            self.sent += COUNT

    def rounds(self, count, step=lambda: None):
        """Rounds of frames, each after a step of the attack. The switch's CPU seconds for all of them."""
        before = processes.cpu_seconds(self.pid)
        for _ in range(count):
            step()
            self.round()
        return processes.cpu_seconds(self.pid) - before

    # --- after it

    def unharmed(self):
        """The same switch, and nobody else's packets were lost."""
        assert self.node.datapath.processes().get("vdpa.io-nic") == self.pid, "the switch was another:\n" + self.log()
        self.round()
        for number, before in enumerate(self._before):
            now = self.node.control.stats(f"nic-{number}")
            assert now["drops"] == before["drops"], f"nic-{number}: {now['drops']}"
            for way in ("tx_packets", "rx_packets"):
                assert now[way] - before[way] >= self.sent // 2, f"nic-{number}: {now}"

    def accused(self, number, *words):
        """The port was closed, and the device's state says why."""
        def told():
            found = self.node.datapath.attachment(f"nic-{number}")
            return found.state.startswith("failed: ") and all(word in found.state for word in words)
        wait_until(told, lambda: f"{words} in the state of nic-{number}: {self.node.datapath.attachment(f'nic-{number}').state}"
                   f"\n{self.log()}", 4)   # the port is closed for 5 s

    def detach(self):
        """The devices of the attackers."""
        while self._attached:
            self.node.datapath.detach(owner(f"c{self._attached.pop()}"))

    def log(self):
        return "\n".join(line for line in self.node.datapath.log().splitlines() if " debug " not in line)[-3000:]
