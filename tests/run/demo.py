"""./run demo [--keep] and ./run demo hardware: runs a real cluster on this machine, with the project installed, and pods."""

from build import build
from image import image
from steps import CACHE, become, main, say
from third_party import cluster_programs, vm_setup


def demo(*arguments):
    if not (CACHE / "cluster/bin/.stamp").exists():
        say("first time 12 minutes on two cores: it compiles Kubernetes and Multus from their sources, once; later 45 seconds")
    build("gcc", "programs")
    cluster_programs()
    image()
    if arguments[:1] == ("hardware",):
        vm_setup()
        become(["tests/cluster/demo_hardware.sh", f"{CACHE}/cluster"])
    become(["tests/cluster/demo.sh", f"{CACHE}/cluster", *arguments])


if __name__ == "__main__":
    main(demo)
