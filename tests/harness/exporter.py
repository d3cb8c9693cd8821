"""vdpa-exporter as a process without rights, what it serves, and the list of it in the documents."""

import contextlib
import re
import socket
import urllib.request

from support import BUILD, ROOT, Program, own_address, wait_until

PROGRAM = BUILD / "deviceplugin/exporter/vdpa-exporter"
DOCUMENT = ROOT / "deviceplugin/exporter/metrics.md"
USER = "65532"
# As its container: nothing of the node but the directory of sockets, no capability, and no way to gain one.
CONTAINER = f"""mount -t tmpfs none /mnt && mkdir /mnt/observe && mount --bind "$1" /mnt/observe && cp "$2" /mnt/ && shift 2 &&
exec setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \\
  /mnt/vdpa-exporter --observe-dir /mnt/observe "$@"
"""
SAMPLE = re.compile(r'(\w+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)",?')


class Metrics:
    """What one scrape served: `types` by name, `samples` as (name, labels, value)."""

    def __init__(self, text):
        self.text = text
        self.types, self.helps, self.samples = {}, {}, []
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                assert name not in self.types, f"{name} is served twice"
                self.types[name] = kind
            elif line.startswith("# HELP "):
                name, self.helps[name] = line.split(" ", 3)[2:]
            elif line:
                name, labels, value = SAMPLE.match(line).groups()
                self.samples.append((name, dict(LABEL.findall(labels or "")), float(value)))

    def all(self, name, **labels):
        """The samples of a metric that have these labels, as (all labels, value)."""
        return [(found, value) for sample, found, value in self.samples
                if sample == name and labels.items() <= found.items()]

    def value(self, name, **labels):
        [(_, value)] = self.all(name, **labels)
        return value

    def labels(self):
        """The labels of each metric, in the order of their names; those of a histogram's parts are its own."""
        found = {}
        for sample, labels, _ in self.samples:
            name = sample if sample in self.types else re.sub("_(bucket|sum|count)$", "", sample)
            found.setdefault(name, set()).add(tuple(sorted(set(labels) - {"le"} if name != sample else labels)))
        return found


def scrape(address, path="/metrics", timeout=10):
    host, port = address
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=timeout) as answer:
        return Metrics(answer.read().decode())


class Exporter(Program):
    """Of the daemons below `directory`/run."""

    def __init__(self, directory, port=9466, name="exporter"):
        self.address = own_address(), port
        observed = directory / "run/observe"
        observed.mkdir(parents=True, exist_ok=True)
        super().__init__(name, ["unshare", "--mount", "sh", "-c", CONTAINER, "-", observed, PROGRAM,
                                "--metrics-address", "%s:%d" % self.address], directory)

    def wait_serving(self):
        self.wait_log("serving metrics")
        return self

    def scrape(self, **options):
        return scrape(self.address, **options)

    def wait(self, condition, what):
        """Returns the first scrape for which the condition holds."""
        found = [None]

        def check():
            found[0] = self.scrape()
            return condition(found[0])
        wait_until(check, lambda: f"{what}:\n{found[0].text}", interval=0.05)
        return found[0]

    def wait_up(self, *daemons):
        return self.wait(lambda metrics: all(metrics.value("vdpa_up", daemon=daemon) == 1 for daemon in daemons),
                         f"{daemons} up")

    def connect(self, request=b""):
        client = socket.create_connection(self.address, 10)
        client.sendall(request)
        return client


def tables():
    """The tables of the document: of what the exporter serves, and of what is deprecated; each row by its column's names."""
    rows, found = [], []
    for line in DOCUMENT.read_text().splitlines():
        if not line.startswith("|"):
            rows = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not rows:
            found.append(rows)
        rows.append(cells)
    return [[dict(zip(rows[0], row, strict=True)) for row in rows[2:]] for rows in found]


def names_in(cell):
    return re.findall("`([^`]*)`", cell)


@contextlib.contextmanager
def cgroup_tree(directory):
    """Files that stand for a cgroup file system (v2) with the cgroup of workers and switches; yields its top."""
    root = directory / "cgroup"
    (root / "vdpa").mkdir(parents=True)
    for name, text in {"cgroup.procs": "", "vdpa/cgroup.procs": "", "vdpa/memory.max": "max\n", "vdpa/memory.current": "4096\n",
                       "vdpa/memory.events": "low 0\noom_kill 3\n"}.items():
        (root / name).write_text(text)
    yield root
