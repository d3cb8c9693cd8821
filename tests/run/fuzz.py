"""./run fuzz [SECONDS] and ./run fuzz minimise: runs the vhost-user fuzzer. The repository has its minimised corpus; further
finds are kept in build/fuzz."""

import pathlib
import shutil

from build import build
from steps import LOGS, main, step

PROGRAM = "tests/fuzz/worker-session-fuzz"  # relative to the build directory, and its target's name
CORPUS = "tests/fuzz/corpus/worker-session"
FINDS = "build/fuzz/worker-session"
MINIMISED = "build/fuzz/minimised"


def fuzzer():
    build("clang-asan")
    step("build-fuzzer", ["ninja", "-C", "build/clang-asan", PROGRAM])


def fuzz(what="60"):
    fuzzer()
    program = f"build/clang-asan/{PROGRAM}"
    pathlib.Path(FINDS).mkdir(parents=True, exist_ok=True)
    if what == "minimise":
        shutil.rmtree(MINIMISED, ignore_errors=True)
        pathlib.Path(MINIMISED).mkdir()
        step("minimise", [program, "-set_cover_merge=1", MINIMISED, CORPUS, FINDS])
        shutil.rmtree(CORPUS)
        shutil.move(MINIMISED, CORPUS)
        return
    step("fuzz", [program, FINDS, CORPUS, f"-max_total_time={what}", "-timeout=10", "-rss_limit_mb=2048",
                  "-print_final_stats=1", f"-artifact_prefix={LOGS}/"])


if __name__ == "__main__":
    main(fuzz)
