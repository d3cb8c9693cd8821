"""The resources that a node's programs use: private memory, descriptors, threads; and the number of files, cgroups and tasks in
them."""

import os

CALLERS = 4  # gRPC keeps the threads of calls that once overlapped
COLUMNS = ("private KiB", "RSS KiB", "descriptors", "threads")


def of_process(pid):
    memory = {}
    for line in open(f"/proc/{pid}/smaps_rollup"):
        parts = line.split()
        if parts[-1] == "kB":
            memory[parts[0].rstrip(":")] = int(parts[1])
    # Without Private_Clean: a page of a program's file is private while no other process has mapped it.
    return (memory["Private_Dirty"], memory["Rss"], len(os.listdir(f"/proc/{pid}/fd")),
            len(os.listdir(f"/proc/{pid}/task")))


class Footprint:
    """Samples every program of a node; the processes must stay the same."""

    def __init__(self, node):
        self.node = node
        self.samples = []   # {program: (values by COLUMNS)}
        self.pids = {name: pids[0] for name, pids in node.processes().items()}
        self.things = []    # {kind: count}

    def sample(self):
        self.samples.append({name: of_process(pid) for name, pid in self.pids.items()})
        cgroups = self.node.cgroups()
        self.things.append({"files below the node directory": len(self.node.files()), "cgroups": len(cgroups),
                            "processes in them": sum(len((path / "cgroup.procs").read_text().split()) for path in cgroups)})

    def table(self):
        """The first sample, the last, and the maximum of each value."""
        lines = [f"{'program':34}" + "".join(f"{column:>28}" for column in COLUMNS),
                 f"{'':34}" + f"{'start':>10}{'end':>9}{'most':>9}" * len(COLUMNS)]
        for name in sorted(self.pids):
            rows = [sample[name] for sample in self.samples]
            cells = "".join(f"{rows[0][i]:>10}{rows[-1][i]:>9}{max(row[i] for row in rows):>9}"
                            for i in range(len(COLUMNS)))
            lines.append(f"{name:34}{cells}")
        for kind in self.things[0]:
            counts = [sample[kind] for sample in self.things]
            lines.append(f"{kind:34}{counts[0]:>10}{counts[-1]:>9}{max(counts):>9}")
        return "\n".join(lines)

    def growth(self, allowed):
        """Reports growth since the first sample: any of descriptors, files and cgroups, and memory beyond `allowed` KiB."""
        for name in sorted(self.pids):
            first, last = self.samples[0][name], self.samples[-1][name]
            for i, column in enumerate(COLUMNS):
                if last[i] > first[i] + (allowed if "KiB" in column else CALLERS if column == "threads" else 0):
                    yield f"{name}: {column} {first[i]} to {last[i]}"
        first, last = self.things[0], self.things[-1]
        for kind in first:
            if last[kind] > first[kind]:
                yield f"{kind}: {first[kind]} to {last[kind]}"
