"""Checks whether clang refuses to read a member without the mutex that guards it by common/mutex.h, and accepts it with that
mutex. The clang build checks the product in this way (-Wthread-safety), but would also succeed if the annotations were
empty."""

import subprocess
import sys

SOURCE = """
#include "common/mutex.h"

class Counter {
 public:
  int count() { %s return count_; }

 private:
  vdpa::Mutex mutex_;
  int count_ GUARDED_BY(mutex_) = 0;
};
"""
COMPILER = ["clang++", "-std=c++20", "-Wthread-safety", "-Werror", "-fsyntax-only", "-I.", "-x", "c++", "-"]
EXPECTED = "reading variable 'count_' requires holding mutex 'mutex_'"


def main():
    unlocked, locked = _compile(""), _compile("vdpa::Lock lock(mutex_);")
    if unlocked.returncode == 0 or EXPECTED not in unlocked.stderr:
        sys.exit(f"a member that is read without its mutex: clang++ did not say \"{EXPECTED}\"\n{unlocked.stderr}")
    if locked.returncode != 0:
        sys.exit(f"a member that is read with its mutex: clang++ refused it\n{locked.stderr}")


def _compile(statement):
    return subprocess.run(COMPILER, input=SOURCE % statement, text=True, capture_output=True, check=False)


if __name__ == "__main__":
    main()
