"""./run fuzz [SECONDS] and ./run fuzz minimise: runs the fuzzers one after another: vhost-user and virtqueues for that time
each, net headers for a quarter of it. The repository has their minimised corpora; further finds are kept in build/fuzz."""

import pathlib
import shutil

from build import build
from steps import LOGS, fail, main, step

# Below the build, each with its corpus and its part of the time. A virtqueue is in memory that another thread writes to: it is
# fuzzed under the sanitizer of memory and under that of threads.
FUZZERS = {
    "worker-session-fuzz": ("worker-session", 1),
    "virtqueue-fuzz": ("virtqueue", 0.5),
    "virtqueue-fuzz-tsan": ("virtqueue", 0.5),
    "net-offload-fuzz": ("net-offload", 0.25),
}
BUILD = "clang-asan"  # the way they were configured
MINIMISED = "build/fuzz/minimised"


def fuzzer():
    build(BUILD)
    step("build-fuzzer", ["ninja", "-C", f"build/{BUILD}", *[f"tests/fuzz/{program}" for program in FUZZERS]])


def fuzz(what="60"):
    if what != "minimise" and not (what.isdecimal() and int(what) > 0):
        fail(f"fuzz '{what}': expected seconds or \"minimise\"")
    fuzzer()
    for program, (corpus, part) in FUZZERS.items():
        finds = pathlib.Path(f"build/fuzz/{corpus}")
        finds.mkdir(parents=True, exist_ok=True)
        if what != "minimise":
            _run(program, finds, corpus, max(1, int(int(what) * part)))
        elif not program.endswith("-tsan"):
            _minimise(program, finds, corpus)


def _run(program, finds, corpus, seconds):
    step(program, [f"build/{BUILD}/tests/fuzz/{program}", finds, f"tests/fuzz/corpus/{corpus}", f"-max_total_time={seconds}",
                   "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={LOGS}/"])


def _minimise(program, finds, corpus):
    shutil.rmtree(MINIMISED, ignore_errors=True)
    pathlib.Path(MINIMISED).mkdir()
    step("minimise", [f"build/{BUILD}/tests/fuzz/{program}", "-set_cover_merge=1", MINIMISED, f"tests/fuzz/corpus/{corpus}",
                      finds])
    shutil.rmtree(f"tests/fuzz/corpus/{corpus}")
    shutil.move(MINIMISED, f"tests/fuzz/corpus/{corpus}")


if __name__ == "__main__":
    main(fuzz)
