"""Everything that a release gives to a host: the table that the tarball and the Debian packages are made from. The image's
programs are listed in ../image/vdpa.sh."""

import pathlib
import subprocess

MANIFESTS = pathlib.Path(__file__).resolve().parents[1]


class Program:
    """A program of the build; stripped, as in the image."""

    def __init__(self, path):
        self.path = path

    def make(self, build, target):
        subprocess.run(["strip", "--remove-section=.note.gnu.build-id", "-o", target, build / self.path], check=True)
        target.chmod(0o755)


class Script:
    """A file of the repository that is a program as it is."""

    def __init__(self, path):
        self.path = path

    def make(self, _, target):
        target.write_bytes((MANIFESTS.parent / self.path).read_bytes())
        target.chmod(0o755)


class Completion:
    """The script that a program prints for a shell."""

    def __init__(self, program, shell):
        self.program, self.shell = program, shell

    def make(self, build, target):
        target.write_bytes(subprocess.check_output([build / self.program, "completion", self.shell]))
        target.chmod(0o644)


# For each Debian package: what it is; its files, by their paths on a host; and its pages of ../man.
VDPACTL = "deviceplugin/ctl/vdpactl"
PACKAGES = {
    "vdpa-cni": (
        "CNI plugin that gives pods vDPA devices as vhost-user sockets",
        {
            "opt/cni/bin/vdpa": Program("cni/vdpa"),
        },
        ["vdpa-cni.8", "vdpa-network.5"],
    ),
    "vdpactl": (
        "shows and manages the vDPA devices of a Kubernetes node",
        {
            "usr/bin/vdpactl": Program(VDPACTL),
            "usr/bin/kubectl-vdpa": Script("deviceplugin/ctl/kubectl-vdpa"),
            "usr/share/bash-completion/completions/vdpactl": Completion(VDPACTL, "bash"),
            "usr/share/zsh/vendor-completions/_vdpactl": Completion(VDPACTL, "zsh"),
            "usr/share/fish/vendor_completions.d/vdpactl.fish": Completion(VDPACTL, "fish"),
        },
        ["vdpactl.8", "kubectl-vdpa.1", "vdpa-device-plugin.8", "vdpa-datapath.8", "vdpa-worker.8", "vdpa-switch.8",
         "vdpa-switch-dpdk.8", "vdpa-pmd.8", "vdpa-exporter.8", "vdpa-ping.1", "vdpa-config.5", "vdpa-device.5"],
    ),
}


def in_tarball(path):
    """A host's path in the tarball, which can be unpacked into /usr/local: cni/bin/vdpa, bin/vdpactl, share/man/..."""
    # Where zsh looks below /usr/local.
    return path.removeprefix("usr/").removeprefix("opt/").replace("zsh/vendor-completions", "zsh/site-functions")
