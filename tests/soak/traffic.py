"""Pods that exchange packets all the time: a frame to the other one whenever the last was taken."""

import select
import threading
import time

from pod import Pod, frame
from support import wait_until

PAUSE = 0.005  # seconds between two turns: little work for a processor, and a loss shows at once


class Application:
    def __init__(self, sandbox, peer):
        self.sandbox, self.peer = sandbox, peer
        self.received = 0
        self.pod = None
        self.start()

    def start(self):
        self.pod = Pod(self.sandbox.socket, self.sandbox.mac)

    def stop(self):
        if self.pod:
            self.pod.__exit__()
            self.pod = None

    def turn(self):
        self.received += len(self.pod.take())
        if self.pod.idle():
            self.pod.offer(frame(self.peer.mac, self.sandbox.mac, b"running"))

    def disconnected(self):
        ready, _, _ = select.select([self.pod.socket], [], [], 0)
        return bool(ready)  # a worker says nothing that it wasn't asked for


class Traffic:
    """Between two sandboxes. A pod whose session ended stays so until restart()."""

    def __init__(self, one, other):
        self.applications = {one.device: Application(one, other), other.device: Application(other, one)}
        self.ended = set()      # devices whose worker ended the session
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
                            self.ended.add(device)
                        else:
                            application.turn()
                time.sleep(PAUSE)
        except Exception as error:  # pylint: disable=broad-except
            self._failure = error

    def received(self):
        assert self._failure is None, f"the traffic's own failure: {self._failure!r}"
        return {device: application.received for device, application in self.applications.items()}

    def restart(self, device):
        """As the application of a pod whose worker was killed: once the socket is there again."""
        def connected():
            try:
                with self._lock:
                    self.applications[device].stop()
                    self.applications[device].start()
                    self.ended.discard(device)
                return True
            except OSError:
                return False
        wait_until(connected, f"the socket of {device} to be there again", 30, interval=0.05)
