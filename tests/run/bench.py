"""./run bench [TOPIC...]: compares the programs with their peers; fails if a target is missed."""

from build import build
from steps import fail, log_of, main, python
from testing import environment_of, shown
from third_party import previous_release

TOPICS = ("plugin", "discovery", "cni", "switch", "isolation", "neighbour")


def bench(*topics):
    build("gcc", "all", "bench")
    for topic in topics:
        if topic not in TOPICS:
            fail(f"bench '{topic}': expected {', '.join(TOPICS[:-1])} or {TOPICS[-1]}")
    topics = topics or TOPICS
    if {"neighbour", "switch"} & set(topics):
        previous_release()
    missed = []
    for topic in topics:
        log = log_of(f"bench-{topic}")
        status = shown(python(f"tests/bench/bench_{topic}.py"), log, environment_of("gcc"))
        lines = [line.removeprefix("MISSED ") for line in log.read_text().splitlines() if line.startswith("MISSED ")]
        if status != 0 and not lines:
            lines = [f"ended with status {status}"]
        missed += [f"  {topic}: {line}" for line in lines]
    if missed:
        print("\nMissed targets:", *missed, sep="\n", flush=True)
        fail(f"{len(missed)} targets were missed")
    print("\nAll targets were met.")


if __name__ == "__main__":
    main(bench)
