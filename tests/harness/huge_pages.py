"""Reserves huge pages of this machine for one test at a time, and a cgroup that counts them."""

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import subprocess
import sys

from support import wait_until

PAGE = 2 << 20
NUMBER = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@contextlib.contextmanager
def huge_pages(count):
    """Adds this many huge pages, all free. Tests that change the machine's number of huge pages this way take turns."""
    with open(NUMBER, encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = int(NUMBER.read_text(encoding="ascii"))
        NUMBER.write_text(str(before + count), encoding="ascii")
        try:
            assert int(NUMBER.read_text(encoding="ascii")) == before + count, "the machine lacks memory for huge pages"
            yield
        finally:
            NUMBER.write_text(str(before), encoding="ascii")


def taken():
    """The number of huge pages in use or reserved."""
    numbers = {name: int((NUMBER.parent / name).read_text(encoding="ascii"))
               for name in ("nr_hugepages", "free_hugepages", "resv_hugepages")}
    return numbers["nr_hugepages"] - numbers["free_hugepages"] + numbers["resv_hugepages"]


def file_of(pages, allocated):
    """Returns the descriptor of a file of huge pages, as a pod makes it; with its pages allocated on request."""
    file = os.memfd_create("huge", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    os.ftruncate(file, pages * PAGE)
    if allocated:
        os.posix_fallocate(file, 0, pages * PAGE)
    return file


def release_pages(file):
    """Frees all pages but the first; the file keeps its length."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_long(os.fstat(file).st_size - PAGE)
    if libc.fallocate(file, 3, ctypes.c_long(PAGE), size) != 0:  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        raise OSError(ctypes.get_errno(), "fallocate")


@contextlib.contextmanager
def reserved_in(cgroup, pages):
    """A process in that cgroup that has reserved pages. Yields the folders of the limits that count them."""
    file = file_of(pages, allocated=False)
    code = f"import mmap, sys; there = mmap.mmap({file}, {pages * PAGE}); print(flush=True); sys.stdin.read()"
    join = f"import os; open('{cgroup}/cgroup.procs', 'w').write(str(os.getpid())); "
    with subprocess.Popen([sys.executable, "-c", join + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          pass_fds=[file]) as process:
        try:
            assert process.stdout.readline() == b"\n", "the pages are reserved"
            yield [path for path in cgroup.iterdir()
                   if path.name in ("hugetlb.2MB.rsvd.max", "hugetlb.2MB.rsvd.limit_in_bytes")]
        finally:
            os.close(file)
            process.stdin.close()


def _hierarchy():
    """The mount point of the hierarchy with the hugetlb controller, v1's or v2's."""
    if (v1 := pathlib.Path("/sys/fs/cgroup/hugetlb")).is_dir():
        return v1
    for v2 in map(pathlib.Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")):
        controllers = v2 / "cgroup.controllers"
        if controllers.exists() and "hugetlb" in controllers.read_text(encoding="ascii").split():
            return v2
    raise AssertionError("this kernel has no hugetlb controller, which the tests of huge pages need")


@contextlib.contextmanager
def cgroup_root():
    """A cgroup that stands for the top of the hierarchy; its processes end with the context."""
    top = _hierarchy()
    control = top / "cgroup.subtree_control"
    enabled = not control.exists() or "hugetlb" in control.read_text(encoding="ascii").split()
    if not enabled:
        control.write_text("+hugetlb", encoding="ascii")
    root = top / f"vdpa-test-{os.getpid()}"
    root.mkdir()
    try:
        yield root
    finally:
        for folder in (root / "vdpa", root):
            wait_until(lambda: removed(folder), f"the processes in {folder} to end")
        if not enabled:
            control.write_text("-hugetlb", encoding="ascii")


def removed(folder):
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
