"""The project's programs in the test machine: runs the tests of inside/ there, with pytest."""

import os

import pytest
from support import BUILD, ROOT

LONG = {"test_ports.py"}
FILES = [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in
         sorted(path.name for path in (ROOT / "tests/vm/inside").glob("test_*.py"))]


@pytest.mark.parametrize("file", FILES)
def test_inside(guest, file):
    guest.check("modprobe -a virtio_net igb vhost_vdpa virtio_vdpa vp_vdpa vdpa_sim_net veth")
    environment = " ".join(f"{name}={os.environ[name]}" for name in os.environ
                           if name.endswith("SAN_OPTIONS") or name == "XDG_CACHE_HOME")
    result = guest.run(f"cd {ROOT}/tests/vm/inside && {environment} VDPA_BUILD={BUILD} "
                       f"/usr/bin/python3 -B -m pytest -p no:cacheprovider -rA --tb=short {file}",
                       timeout=1800 if file in LONG else 900)
    print(result.output)  # every test's result, for the log
    assert result.code == 0, result.output[-6000:]
