"""Pods that exchange numbered packets all the time, in bursts: each sends a burst once its peer has taken the last one.

A switch with one poller keeps the order of a flow. A skipped number is therefore a lost packet once a later one arrives, and an
earlier number is a duplicate.
"""

import select
import struct
import threading
import time

from pod import Pod, frame
from support import wait_until

PAUSE = 0.005  # seconds between turns: little load, and a loss shows at once
BURST = 4      # packets per turn; several turns are in the switch at once, and the peer's ring holds twice as many
RATE = BURST / PAUSE  # packets per second, at most
NAME = b"soak-number"


class Flow:
    """The peer's numbers as one pod receives them."""

    def __init__(self):
        self.next = self.received = 0
        self.gaps = []       # the lengths of gaps in the numbers
        self.twice = 0

    def take(self, number):
        self.received += 1
        if number < self.next:
            self.twice += 1
            return
        if number > self.next:
            self.gaps.append(number - self.next)
        self.next = number + 1

    def losses(self):
        """Returns and resets the counts."""
        losses, self.gaps, self.twice = (self.gaps, self.twice), [], 0
        return losses


class Application:
    def __init__(self, sandbox, peer):
        self.sandbox, self.peer = sandbox, peer
        self.flow = Flow()
        self.sent = 0
        self.pod = None
        self.start()

    def start(self):
        self.pod = Pod(self.sandbox.socket, self.sandbox.mac)

    def stop(self):
        if self.pod:
            self.pod.__exit__()
            self.pod = None

    def turn(self):
        for data in self.pod.take():
            if data[14:].startswith(NAME):
                self.flow.take(struct.unpack_from("!Q", data, 14 + len(NAME))[0])
        if self.pod.idle():
            for _ in range(BURST):
                self.pod.offer(frame(self.peer.mac, self.sandbox.mac, NAME + struct.pack("!Q", self.sent)))
                self.sent += 1

    def disconnected(self):
        ready, _, _ = select.select([self.pod.socket], [], [], 0)
        return bool(ready)  # a worker sends no unrequested messages


class Traffic:
    """A pod between two sandboxes. A pod whose session ended stays so until restart()."""

    def __init__(self, one, other):
        self.applications = {one.device: Application(one, other), other.device: Application(other, one)}
        self.ended = {}         # when the worker of each device ended the session
        self._away = 0.0        # seconds for which sessions were down
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()
        for application in self.applications.values():
            application.stop()

    def _run(self):
        try:
            while not self._stopping.is_set():
                with self._lock:
                    for device, application in self.applications.items():
                        if device in self.ended:
                            continue
                        if application.disconnected():
                            self.ended[device] = time.monotonic()
                        else:
                            application.turn()
                time.sleep(PAUSE)
        except Exception as error:  # pylint: disable=broad-except
            self._failure = error

    def received(self):
        assert self._failure is None, f"the traffic's own failure: {self._failure!r}"
        return {device: application.flow.received for device, application in self.applications.items()}

    def losses(self):
        """The losses of each device since the last call: the lengths of the gaps, and the number of duplicates."""
        with self._lock:
            return {device: application.flow.losses() for device, application in self.applications.items()}

    def away(self):
        """The seconds for which a pod had no session since the last call."""
        away, self._away = self._away, 0.0
        return away

    def restart(self, device):
        """Reconnects, as the application of a pod whose worker was killed, once the socket is back."""
        def connected():
            try:
                with self._lock:
                    self.applications[device].stop()
                    self.applications[device].start()
                    self._away += time.monotonic() - self.ended.pop(device)
                return True
            except OSError:
                return False
        wait_until(connected, f"the socket of {device} to be there again", 30, interval=0.05)
