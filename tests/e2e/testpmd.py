"""testpmd in a pod, controlled through a pipe. It is reached by a shell in the pod, by whichever way is available."""

from support import wait_until

COMMAND = ("busybox mkfifo /tmp/in; exec 3<>/tmp/in; cat /run/vdpa/*/eal-args > /tmp/eal-args; "
           "exec dpdk-testpmd --lcores 0@{core},1@{core} --no-pci --no-huge -m 128 --no-telemetry $(cat /tmp/eal-args) "
           "-- --total-num-mbufs=4096 --interactive <&3 >/tmp/out 2>&1")
# testpmd buffers its output, so it is made to print this many blocks of counters after it.
FLUSH = 6


class Application:
    def __init__(self, shell):
        """`shell` runs a line in the pod and returns its output."""
        self.shell = shell
        self._shown = 0
        wait_until(lambda: "testpmd>" in self.out(), self.out, 60, 0.2)

    def tell(self, *commands):
        lines = "".join(f"{command}\\n" for command in commands)
        self.shell(f"printf '{lines}' > /tmp/in")

    def out(self):
        return self.shell("cat /tmp/out 2> /dev/null || true")

    def counters(self):
        """Packets received and sent since testpmd started, read after this call began."""
        before = self._shown

        def shown():
            self._shown += FLUSH
            self.tell(*["show port stats all"] * FLUSH)
            blocks = self.out().split("NIC statistics for port 0")[1:]
            whole = [b for b in blocks if "TX-packets:" in b and "TX-bytes:" in b]
            return whole[-1] if len(whole) > before else None
        block = wait_until(shown, lambda: self.out()[-3000:], 30, 0.05)
        return tuple(int(block.split(f"{way}-packets:")[1].split()[0]) for way in ("RX", "TX"))

    def still(self):
        """The counters, once they no longer change."""
        seen = []

        def same():
            seen.append(self.counters())
            return len(seen) > 1 and seen[-1] == seen[-2]
        wait_until(same, lambda: f"no packet in flight: {seen}", 60, 0.2)
        return seen[-1]
