"""./run image [containerfile]: makes the container image in build/image, from Debian packages only."""

from build import build
from steps import main, step


def image(how=""):
    build("gcc", "programs", *(f"tests/next/vdpa-{name}" for name in ("datapath", "worker", "switch", "pmd")))
    step("image", ["tests/cluster/images.sh", "build/gcc", "build/image"])
    if how == "containerfile":
        step("containerfile", ["tests/cluster/containerfile.sh", "build/image/vdpa.tar"])


if __name__ == "__main__":
    main(image)
